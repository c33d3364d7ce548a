"""Records of components, whose options are checked as strictly as greensv's own configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge

from greensv.config.load import Problem, validate


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    snr_db: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    size_m: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    tests: tuple[str, ...] = ()
    range_s: tuple[float, float] = (2.0, 4.0)
    dev: str | None = None
    number: int | float = 1
    colour: Literal["white", "pink"] | None = None
    count: Annotated[int, Ge(1)] | None = None
    effect: Noise | Room = field(default_factory=Noise)
    effects: Mapping[str, Noise] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.range_s[0] > self.range_s[1]:
            raise ValueError(f"range_s is empty: {self.range_s[0]} is larger than {self.range_s[1]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    pass


def problems(data: Any) -> list[str]:
    record, found = validate(Options, data, where="dataset.options")
    assert record is None
    return [str(problem) for problem in found]


def test_options_become_the_record():
    data = {
        "tests": ["a", "b"],
        "range_s": [1, 2],
        "number": 2.5,
        "effect": {"size_m": 4},
        "effects": {"x": {"snr_db": 1}},
    }
    assert validate(Options, data) == (
        Options(
            tests=("a", "b"), range_s=(1.0, 2.0), number=2.5, effect=Room(size_m=4.0), effects={"x": Noise(snr_db=1.0)}
        ),
        [],
    )


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            {"test": []},
            "dataset.options.test: unknown key; did you mean 'tests'? (known: tests, range_s, dev, number, colour, "
            "count, effect, effects)",
        ),
        (
            {"effects": {"x": {"snr": 3}}},
            "dataset.options.effects.x.snr: unknown key; did you mean 'snr_db'? (known: snr_db)",
        ),
        ({"range_s": [1]}, "dataset.options.range_s[1]: missing; it has no default"),
        (
            {"range_s": [1, 2, 3]},
            "dataset.options.range_s: Tuple should have at most 2 items after validation, not 3, found [1, 2, 3]",
        ),
        ({"range_s": [4, 2]}, "dataset.options: range_s is empty: 4.0 is larger than 2.0"),
        (
            {"number": "1"},
            "dataset.options.number: should be a whole number, found '1'; write it without quotes, "
            "or should be a number, found '1'; write it without quotes",
        ),
        (
            {"number": {"x": 1}},
            "dataset.options.number: should be a whole number, found {'x': 1}, or should be a number, found {'x': 1}",
        ),
        ({"colour": "pnik"}, "dataset.options.colour: should be 'white' or 'pink', found 'pnik'; did you mean 'pink'?"),
        ({"count": 0}, "dataset.options.count: should be greater than or equal to 1, found 0"),
        (3, "dataset.options: should be a table, found 3"),
    ],
)
def test_a_mistake_is_told_with_its_place_in_the_whole_configuration(data: Any, problem: str):
    assert problems(data) == [problem]


def test_a_mistake_in_a_union_of_records_names_the_key_not_the_record():
    assert [line.split(":")[0] for line in problems({"effect": {"size": 3}})] == ["dataset.options.effect.size"]


def test_a_record_without_fields_knows_no_key():
    record, found = validate(NoOptions, {"x": 1})
    assert (record, found) == (None, [Problem(where="x", what="unknown key (known: none)")])
    assert validate(NoOptions, {}) == (NoOptions(), [])


def test_validating_leaves_the_record_type_as_it_was():
    before = set(dir(Options))
    validate(Options, {})
    assert set(dir(Options)) == before
