"""What every loop of a comparison reports: the moments its steps ended."""

import json
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Clock:
    """Started before the loop is; `tick` is called after each step."""

    batch_size: int
    began_s: float = field(default_factory=time.perf_counter)
    ended_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def tick(self) -> None:
        """A step has ended."""
        self.ended_s.append(time.perf_counter())

    def report(self, *, num_warmup: int = 2) -> None:
        """Prints utterances per second in the steady state and over the whole epoch, its beginning counted."""
        steady_s = self.ended_s[-1] - self.ended_s[num_warmup - 1]
        epoch_s = self.ended_s[-1] - self.began_s
        num_steps = len(self.ended_s)
        print(
            json.dumps(
                {
                    "steady": (num_steps - num_warmup) * self.batch_size / steady_s,
                    "epoch": num_steps * self.batch_size / epoch_s,
                    "num_steps": num_steps,
                }
            )
        )
