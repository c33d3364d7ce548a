"""The search: the only place where trials, joules and speakers meet."""
