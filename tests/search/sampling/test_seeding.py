from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import optuna
import pytest

from greensv.config.study import SearchConfig
from greensv.errors import StudyError
from greensv.search.candidate import Candidate, SearchSpace, build_space
from greensv.search.cost import Prediction
from greensv.search.sampling.seeding import Start, first_candidates
from greensv.search.storage import open_storage
from greensv.search.study import create_or_continue
from tiny.study import Lab

NOTHING = SearchConfig(start_with_ends=False, start_with_published=False)


@dataclass
class Squares:
    """A tiny network costs its width squared times its depth."""

    widest: int = 16

    def rung_costs(self, candidates: Sequence[Candidate], *, from_step: int, to_step: int) -> list[Prediction]:
        joules = [float(c.params["width"]) ** 2 * float(c.params["depth"]) for c in candidates]
        return [Prediction(energy_j=j * (to_step - from_step), upper_j=j, duration_s=1.0) for j in joules]

    def known_objectives(self, candidates):
        raise AssertionError("nobody needs them here")

    def refusal(self, candidate: Candidate) -> str | None:
        return "width above the bound" if candidate.params["width"] > self.widest else None


@pytest.fixture
def storage(lab: Lab) -> Iterator[optuna.storages.RDBStorage]:
    storage, ledger = open_storage(lab.url, create=True)
    yield storage
    ledger.engine.dispose()
    storage.engine.dispose()


@pytest.fixture
def space(lab: Lab) -> SearchSpace:
    return build_space({"tiny": {}}, lab.plugins)


def start(search: SearchConfig, space: SearchSpace, *, costs=None, storage=None) -> Start:
    return first_candidates(search, space, costs or Squares(), num_steps=10, study_name="new", storage=storage)


def listed(found: Start) -> list[tuple[int, int, str]]:
    return [(f.candidate.params["width"], f.candidate.params["depth"], f.reason) for f in found.first]


def earlier_study(lab: Lab, storage, trials: dict[tuple[int, int], tuple[float, float]], **changes) -> None:
    """Stores a study of the tiny backbone: {(width, depth): (EER, kWh)}."""
    study = create_or_continue(lab.config(**changes), storage, versions={}).optuna
    several = len(changes.get("backbones", {"tiny": {}})) > 1
    prefix, backbone = ("tiny-too.", {"backbone": "tiny-too"}) if several else ("", {})
    for (width, depth), (eer, energy_kwh) in trials.items():
        study.enqueue_trial({**backbone, f"{prefix}width": width, f"{prefix}depth": depth})
        trial = study.ask()
        if several:
            trial.suggest_categorical("backbone", ["tiny", "tiny-too"])
        trial.suggest_int(f"{prefix}width", 2, 16)
        trial.suggest_int(f"{prefix}depth", 1, 3)
        trial.set_user_attr("backbone", "tiny-too" if several else "tiny")
        trial.set_user_attr("eer", eer)
        trial.set_user_attr("train_energy_kwh", energy_kwh)
        study.tell(trial, [eer, energy_kwh])


def test_known_systems_and_the_ends_go_first_from_the_cheapest_to_the_dearest(space: SearchSpace):
    expected = [(2, 1, "end of the space"), (8, 2, "published system Tiny-8"), (16, 3, "end of the space")]
    assert listed(start(SearchConfig(), space)) == expected
    assert listed(start(replace(SearchConfig(), start_with_ends=False), space)) == expected[1:2]
    assert listed(start(replace(SearchConfig(), start_with_published=False), space)) == [expected[0], expected[2]]
    assert start(NOTHING, space) == Start(first=(), notes=())


def test_of_many_published_systems_the_cheapest_six_that_lie_in_the_space_go_first(
    space: SearchSpace, lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    backbone = space.backbones["tiny"]
    systems = {f"Tiny-{width}": {"width": width, "depth": 1} for width in range(16, 2, -1)}
    monkeypatch.setattr(backbone, "systems", lambda: {**systems, "Other": {"width": 5}}, raising=False)
    published = replace(SearchConfig(), start_with_ends=False)
    assert [width for width, _, _ in listed(start(published, space))] == [3, 4, 5, 6, 7, 8]
    narrow = build_space({"tiny": {"width": [7, 9]}}, lab.plugins)
    monkeypatch.setattr(narrow.backbones["tiny"], "systems", lambda: systems, raising=False)
    assert [width for width, _, _ in listed(start(published, narrow))] == [7, 8, 9]


def test_what_is_refused_does_not_go_first(space: SearchSpace):
    found = start(SearchConfig(), space, costs=Squares(widest=10))
    assert [width for width, _, _ in listed(found)] == [2, 8]
    assert found.notes == ("end of the space does not go first: width above the bound",)


def test_the_front_of_an_earlier_study_goes_first_where_it_lies_in_the_space(lab: Lab, storage):
    trials = {(4, 1): (0.2, 1.0), (8, 2): (0.1, 2.0), (9, 2): (0.15, 3.0), (16, 3): (0.05, 9.0)}
    earlier_study(lab, storage, trials, name="old")
    space = build_space({"tiny": {"width": [2, 12]}}, lab.plugins)
    found = start(replace(SearchConfig(), start_with_ends=False, start_with_studies=("old",)), space, storage=storage)
    # Trial 2 is dominated, trial 3 is too wide; trial 1 is also a published system, and named once.
    assert listed(found) == [(4, 1, "trial 0 of study 'old'"), (8, 2, "trial 1 of study 'old'")]
    assert found.notes == ("trial 3 of study 'old' does not go first: width: 16 is outside 2 to 12",)


def test_parameters_of_a_study_of_several_backbones_find_their_own(lab: Lab, storage):
    earlier_study(lab, storage, {(5, 2): (0.1, 1.0)}, name="old", backbones={"tiny": {}, "tiny-too": {}})
    search = replace(NOTHING, start_with_studies=("old",))
    found = start(search, build_space({"tiny-too": {}}, lab.plugins), storage=storage)
    assert [f.candidate for f in found.first] == [Candidate(backbone="tiny-too", params={"width": 5, "depth": 2})]
    elsewhere = start(search, build_space({"tiny": {}}, lab.plugins), storage=storage)
    assert elsewhere.first == ()
    assert elsewhere.notes == ("trial 0 of study 'old' does not go first: backbone 'tiny-too' is not searched",)


def test_an_earlier_study_without_a_front_is_noted(lab: Lab, storage, space: SearchSpace):
    earlier_study(lab, storage, {}, name="old")
    found = start(replace(NOTHING, start_with_studies=("old",)), space, storage=storage)
    assert found == Start(first=(), notes=("study 'old' has no front yet: nothing of it goes first",))


def test_an_earlier_study_must_be_there_and_be_another(lab: Lab, storage, space: SearchSpace):
    earlier_study(lab, storage, {}, name="old")
    with pytest.raises(StudyError, match=r"no study named 'odl'; did you mean 'old'"):
        start(replace(NOTHING, start_with_studies=("odl",)), space, storage=storage)
    with pytest.raises(StudyError, match="'new' is this study itself"):
        start(replace(NOTHING, start_with_studies=("new",)), space, storage=storage)
