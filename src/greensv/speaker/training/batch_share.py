"""Checks that a team can share a recipe's batch evenly."""

from greensv.config import Recipe
from greensv.errors import ConfigError
from greensv.speaker.distributed import Team


def check_share(recipe: Recipe, team: Team) -> None:
    """Sees to it that each process, and each micro-batch in it, gets as many crops as the others, two at least.

    Raises:
        ConfigError: it cannot be; names the numbers of processes with which it can.
    """
    num_parts = team.size * recipe.num_micro_batches
    if recipe.batch_size % num_parts or recipe.batch_size < 2 * num_parts:
        raise ConfigError(
            f"a batch of {recipe.batch_size} cannot be shared by {team.size} processes in {recipe.num_micro_batches} "
            f"micro-batches each: recipe.batch_size must be a multiple of {num_parts}, and at least {2 * num_parts}; "
            + _advice(recipe)
        )


def _advice(recipe: Recipe) -> str:
    """Names the numbers of processes that can share a batch: a study's recipe is not changed once it has begun."""
    batch, num_micro_batches = recipe.batch_size, recipe.num_micro_batches
    sizes = [size for size in range(1, batch // (2 * num_micro_batches) + 1) if batch % (size * num_micro_batches) == 0]
    if not sizes:
        return "no number of processes can share it, so change recipe.batch_size or recipe.num_micro_batches"
    return f"so use {' or '.join(map(str, sizes))} processes (torchrun --nproc-per-node), or another recipe"
