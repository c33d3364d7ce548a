"""Which candidates go first: known systems, the ends of the space, the fronts of earlier studies."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greensv.config.study import SearchConfig
from greensv.errors import StudyError
from greensv.search.candidate import BACKBONE_PARAMETER, Candidate, SearchSpace
from greensv.search.sampling.drawing import Key
from greensv.search.sampling.encoding import candidate_key
from greensv.search.scheduling.policy import Costs
from greensv.search.study import RETRAIN_SUFFIX, load

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

MAX_PUBLISHED = 6
"""Published systems that go first: enough to judge the rungs by, and few enough to leave most of a budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """A candidate that goes first."""

    candidate: Candidate
    reason: str
    """In words, for the queue and the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What goes first, and what was left out of it."""

    first: tuple[First, ...]
    notes: tuple[str, ...]
    """In words: what an earlier study's front holds that this study cannot train."""


def first_candidates(
    search: SearchConfig,
    space: SearchSpace,
    costs: Costs,
    *,
    num_steps: int,
    study_name: str,
    storage: "RDBStorage | None" = None,
) -> Start:
    """Returns the candidates that go first, from the cheapest to the dearest, each once; none when all is off.

    Those that break a constraint or do not fit the device are left out.

    Args:
        search: what goes first: `start_with_ends`, `start_with_published` and `start_with_studies`.
        space: of the study; what does not lie in it is left out.
        costs: predicts what each uses.
        num_steps: of a whole short training.
        study_name: of the study that begins.
        storage: where the earlier studies are; needed where there are any.

    Raises:
        StudyError: an earlier study is not there, or is this one.
    """
    notes: list[str] = []
    found = [*_earlier(search, space, study_name, storage, notes)]
    if search.start_with_published:
        systems = [*_published(space)]
        found += [system for system, _ in _by_cost(systems, costs, num_steps)[:MAX_PUBLISHED]]
    if search.start_with_ends:
        found += [First(candidate=end, reason="end of the space") for end in space.ends()]
    unique: dict[Key, First] = {}
    for each in found:
        unique.setdefault(candidate_key(each.candidate), each)
    kept = []
    for each, _ in _by_cost([*unique.values()], costs, num_steps):
        refusal = costs.refusal(each.candidate)
        if refusal is None:
            kept.append(each)
        else:
            notes.append(f"{each.reason} does not go first: {refusal}")
    return Start(first=tuple(kept), notes=tuple(notes))


def _by_cost(found: list[First], costs: Costs, num_steps: int) -> list[tuple[First, float]]:
    """Returns them with their predicted joules, from the cheapest to the dearest."""
    if not found:
        return []
    predicted = costs.rung_costs([each.candidate for each in found], from_step=0, to_step=num_steps)
    priced = [(each, prediction.energy_j) for each, prediction in zip(found, predicted, strict=True)]
    return sorted(priced, key=lambda pair: pair[1])


def _published(space: SearchSpace) -> Iterator[First]:
    for name, backbone in space.backbones.items():
        for system, params in backbone.systems().items():
            candidate = Candidate(backbone=name, params=dict(params))
            if _why_outside(candidate, space) is None:
                yield First(candidate=candidate, reason=f"published system {system}")


def _earlier(
    search: SearchConfig, space: SearchSpace, study_name: str, storage: "RDBStorage | None", notes: list[str]
) -> Iterator[First]:
    for name in search.start_with_studies:
        if name.removesuffix(RETRAIN_SUFFIX) == study_name:
            raise StudyError(f"search.start_with_studies: {name!r} is this study itself; name earlier ones")
        assert storage is not None, "earlier studies lie in a storage"
        front = load(name, storage).front()
        if not front:
            notes.append(f"study {name!r} has no front yet: nothing of it goes first")
        for record in front:
            what = f"trial {record.number} of study {name!r}"
            candidate = _candidate(record.backbone, record.params)
            outside = _why_outside(candidate, space)
            if outside is None:
                yield First(candidate=candidate, reason=what)
            else:
                notes.append(f"{what} does not go first: {outside}")


def _candidate(backbone: str, trial_params: Mapping[str, Any]) -> Candidate:
    """Returns the candidate of a trial of any study: with several backbones, its parameters carry their names."""
    params = {k.removeprefix(f"{backbone}."): v for k, v in trial_params.items() if k != BACKBONE_PARAMETER}
    return Candidate(backbone=backbone, params=params)


def _why_outside(candidate: Candidate, space: SearchSpace) -> str | None:
    """Says why a candidate is not in a space; None when it is."""
    parameters = space.spaces.get(candidate.backbone)
    if parameters is None:
        return f"backbone {candidate.backbone!r} is not searched"
    if parameters.keys() != candidate.params.keys():
        return f"{candidate.backbone} has other parameters here"
    for key, parameter in parameters.items():
        if problem := parameter.problem(candidate.params[key]):
            return f"{key}: {problem}"
    return None
