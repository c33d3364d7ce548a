"""Scores: of pairs, normalised and calibrated, and what they are worth."""
