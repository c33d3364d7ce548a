"""Estimates of networks that were not counted."""

from collections.abc import Mapping

import numpy as np
import pytest

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.work_estimates import MIN_COUNTED, WorkEstimates
from greensv.speaker.space import Choice, FloatRange, IntRange

SPACE = {
    "depth": IntRange(low=1, high=64, default=4, log=True),
    "width": FloatRange(low=-4.0, high=2.0, default=0.0, step=0.5),
    "block": Choice(options=("basic", "bottleneck"), default="basic"),
}


def columns(candidate: Candidate) -> Mapping[str, float]:
    """A family whose counts are powers of its parameters, as those of convolutional networks nearly are."""
    depth, channels = float(candidate.params["depth"]), 64 * 2.0 ** float(candidate.params["width"])
    wide = 1.0 if candidate.params["block"] == "basic" else 1.8
    return {
        "macs": 1e4 * depth * channels**2 * wide,
        "activations": 1e3 * depth * channels * wide,
        "num_layers": 2 * depth,
        "num_parameters": 9 * depth * channels**2,
    }


def test_few_are_counted_and_the_rest_estimated():
    space = SearchSpace(backbones={}, spaces={"any": SPACE})
    counted: list[Candidate] = []

    def count(candidate: Candidate) -> Mapping[str, float]:
        if candidate not in counted:
            counted.append(candidate)
        return columns(candidate)

    estimates = WorkEstimates(space, count, lambda candidate: candidate in counted)
    random = np.random.default_rng(0)
    drawn = [space.draw(random) for _ in range(100)]
    found = estimates.of(drawn)
    assert MIN_COUNTED <= len(counted) < 30
    for candidate, estimated in zip(drawn, found, strict=True):
        for column, value in columns(candidate).items():
            assert estimated[column] == pytest.approx(value, rel=0.1), (candidate, column)
    num_counted = len(counted)
    (exact,) = estimates.of([space.draw(random)], is_exact=True)
    assert len(counted) == num_counted + 1
    assert exact == columns(counted[-1])
