"""How much training the tiny networks of this process have done, for the tiny meter to read."""

import os
from collections.abc import Callable
from dataclasses import dataclass

SLEEP_VARIABLE = "TINY_STEP_SLEEP_S"
"""Environment variable: seconds that each training step takes longer, so that a test can hit a search in one."""
QUICK_VARIABLE = "TINY_QUICK_STEPS"
"""Environment variable: so many of the process's first training steps take no longer, such as those of its probes."""


@dataclass
class Work:
    """Units of work done; a forward pass in training is `TinyNetwork.units` of them, times `factor`."""

    units: float = 0.0
    factor: float = 1.0
    on_step: Callable[[], None] | None = None
    """Called in each training step."""
    explodes: bool = False
    """Makes what is trained put out infinite embeddings."""
    step_sleep_s: float = float(os.environ.get(SLEEP_VARIABLE, "0"))
    num_quick_steps: int = int(os.environ.get(QUICK_VARIABLE, "0"))
    """How many steps are still to come that `step_sleep_s` does not make longer."""


WORK = Work()
