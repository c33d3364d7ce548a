"""Corpora and lists: which utterances there are, who speaks, and which pairs are tried."""
