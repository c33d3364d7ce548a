"""From samples to energy: which meters are used, unwrapped counters, windows, their uncertainty and parts."""
