"""Several processes on one node: what meters read of the whole of it, allotted to each."""
