"""Search problems without a training, and a simulated world to search them in."""
