"""What was drawn for the crops of one step, on its way from the thread that reads files to the device."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One kind of sound for some crops; a crop may come several times, as babble does.

    Attributes:
        rows: which crop of those at hand, one entry a sound.
        values: the sound's samples, or the parameters (uniform in [0, 1)) that it is made from.
        snr_db: signal-to-noise ratio; for rooms without meaning.
    """

    rows: Int[Tensor, " sounds"]
    values: Float[Tensor, "sounds values"]
    snr_db: Float[Tensor, " sounds"]

    @classmethod
    def of(cls, rows: NDArray[np.int64], values: NDArray[np.floating], snr_db: NDArray[np.floating]) -> Self:
        """Returns the part that arrays describe."""
        return cls(
            rows=torch.from_numpy(rows.astype(np.int64)),
            values=torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)),
            snr_db=torch.from_numpy(snr_db.astype(np.float32)),
        )

    @classmethod
    def joined(cls, parts: Sequence["Part"]) -> "Part":
        """Returns several parts as one; no part as one without sounds."""
        if not parts:
            return cls(rows=torch.zeros(0, dtype=torch.int64), values=torch.zeros(0, 0), snr_db=torch.zeros(0))
        if len(parts) == 1:
            return parts[0]
        return cls(
            rows=torch.cat([part.rows for part in parts]),
            values=torch.cat([part.values for part in parts]),
            snr_db=torch.cat([part.snr_db for part in parts]),
        )

    def to(self, device: torch.device) -> "Part":
        """Returns the part on a device; from pinned memory without waiting."""
        return Part(
            rows=self.rows.to(device, non_blocking=True),
            values=self.values.to(device, non_blocking=True),
            snr_db=self.snr_db.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Part":
        """Returns the part in memory that a GPU copies from by itself."""
        return Part(rows=self.rows.pin_memory(), values=self.values.pin_memory(), snr_db=self.snr_db.pin_memory())

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """The disturbances of the crops at hand.

    Attributes:
        disturbed: the crops disturbed at all, each once.
        recorded: sounds to add, as samples: from files, or other crops.
        noise: built-in noise to add, as parameters.
        music: built-in music to add, as parameters.
        impulse_responses: recorded or simulated rooms, as samples.
        rooms: built-in rooms, as parameters.
    """

    disturbed: Int[Tensor, " crops"]
    recorded: Part
    noise: Part
    music: Part
    impulse_responses: Part
    rooms: Part

    def to(self, device: torch.device) -> "Drawn":
        """Returns the same on a device; from pinned memory without waiting."""
        parts = {field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)[1:]}
        return Drawn(disturbed=self.disturbed.to(device, non_blocking=True), **parts)

    def pin_memory(self) -> "Drawn":
        """Returns the same in memory that a GPU copies from by itself."""
        parts = {field.name: getattr(self, field.name).pin_memory() for field in dataclasses.fields(self)[1:]}
        return Drawn(disturbed=self.disturbed.pin_memory(), **parts)
