"""Starts workers: as processes of this machine, or as jobs of a cluster. What they do is the search's business."""
