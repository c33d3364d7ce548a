"""What a training will cost, before it runs: energy, time, memory; from a prior, probes, and all that was measured."""

from greensv.search.cost.model import CostModel, Measured, Prediction
from greensv.search.cost.work import Work

__all__ = ["CostModel", "Measured", "Prediction", "Work"]
