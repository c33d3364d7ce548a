import dataclasses

import pytest

from greensv.errors import ConfigError
from greensv.search.objectives import OBJECTIVES, broken_constraints, constraints_of, objectives_of, values_of
from greensv.trial_record import TrialRecord

RECORD = TrialRecord(
    number=0, state="complete", eer=0.05, train_energy_kwh=2.0, num_parameters=5_000_000, latency_s=0.02
)


def test_each_objective_is_a_field_of_the_record():
    fields = {field.name for field in dataclasses.fields(TrialRecord)}
    assert {objective.field for objective in OBJECTIVES.values()} <= fields
    assert [objective.name for objective in OBJECTIVES.values() if objective.needs_training] == ["eer"]


def test_values_come_in_the_studys_order():
    assert values_of(RECORD, objectives_of(("params", "eer"))) == (5e6, 0.05)
    assert values_of(RECORD, objectives_of(("eer", "embed_energy"))) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("eer", "parms"), r"unknown 'parms'; did you mean 'params'\? \(known: eer, train_energy"),
        (("eer",), "found eer; give two or three different ones, eer among them"),
        (("eer", "eer"), "found eer, eer"),
        (("params", "train_energy"), "found params, train_energy"),
        (("eer", "train_energy", "params", "latency"), "found eer, train_energy, params, latency"),
        ((), "found none"),
    ],
)
def test_objectives_that_make_no_study_are_refused(names: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        objectives_of(names)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("params < 5M", 5e6),
        (" params<=5.5 M ", 5.5e6),
        ("params < 800k", 8e5),
        ("latency < 20m", 0.02),
        ("latency < 900 u", 9e-4),
        ("embed_energy < .5", 0.5),
        ("train_energy < 1e-3", 1e-3),
        ("eer < 0.05", 0.05),
    ],
)
def test_a_constraint_is_read(text: str, bound: float):
    (constraint,) = constraints_of([text])
    assert constraint.bound == pytest.approx(bound)
    assert constraint.excess(2 * bound) == pytest.approx(1.0)
    assert constraint.excess(bound) <= 0


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["params > 5M"], "'params > 5M' cannot be read; write one of eer, train_energy"),
        (["speed < 5"], "cannot be read"),
        (["params < 1.2.3"], "cannot be read"),
        (["params < 5 apples"], "cannot be read"),
        (["params < 0"], "a number above 0"),
        (["params < 5m"], "no parameter: m is a thousandth, M a million"),
        (["params < 5M", "params < 6M"], "params has two bounds"),
    ],
)
def test_constraints_that_cannot_be_kept_are_refused(texts: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        constraints_of(texts)


def test_a_record_says_which_constraints_it_breaks():
    texts = ["params < 4M", "latency < 20m", "embed_energy < 1"]
    assert broken_constraints(RECORD, constraints_of(texts)) == ["params < 4M"]  # what was not measured breaks none
    assert broken_constraints(RECORD, ()) == []
