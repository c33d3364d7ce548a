"""The rungs of a study: after how many steps its trainings are compared."""

from greensv.config.study import SearchConfig


def rung_levels(num_steps: int, search: SearchConfig) -> tuple[int, ...]:
    """Returns the steps of each rung, rising; the last is the whole short training of `num_steps` steps.

    Each has `eta` times the steps of the one below it. Rungs that would have fewer than `min_rung_steps` are left out.
    """
    if search.scheduler == "none":
        return (num_steps,)
    levels = [num_steps]
    while len(levels) < search.num_rungs:
        below = -(-levels[-1] // search.eta)
        if below < search.min_rung_steps or below >= levels[-1]:
            break
        levels.append(below)
    return tuple(reversed(levels))
