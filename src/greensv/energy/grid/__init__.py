"""Carbon: the factor series of a study's grid, fetched, kept, completed, and integrated over its charges."""
