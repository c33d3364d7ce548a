"""Training: crops and batches, the recipe, and the loop over steps."""
