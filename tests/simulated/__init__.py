"""Simulated hardware: a scripted meter and clock, a powercap tree, and a stand-in for libnvidia-ml."""
