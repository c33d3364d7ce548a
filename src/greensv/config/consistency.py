"""Checks of several values of one record against each other; each raises ValueError, which becomes a mistake."""

from collections.abc import Mapping, Sequence
from typing import Any

_ROUNDING = 1e-9
"""Ten times 0.1 is not quite 1."""


def require_order(names: str, values: tuple[float, float]) -> None:
    """Refuses a low value above its high one."""
    low, high = values
    if low > high:
        raise ValueError(f"{names} should be a low and a high value, found {low:g} and {high:g}")


def require_shares(what: str, shares: Sequence[float]) -> None:
    """Refuses shares of the same crops that add up to more than all."""
    if sum(shares) > 1 + _ROUNDING:
        raise ValueError(
            f"{what} add up to {sum(shares):g}, but a crop is disturbed in one way at the most; lower them to 1 in all"
        )


def require_roots(roots: Mapping[str, str | None]) -> None:
    """Refuses folders below a root that is not given."""
    missing = [key for key, root in roots.items() if root is None]
    if missing:
        flags = " and ".join("--" + key.replace("_", "-") for key in missing)
        raise ValueError(
            f"disturbances name folders below {' and '.join(missing)}, not given; give {flags} DIR, or leave folders "
            "out for the built-in sounds"
        )


def require_milestones(milestones: Sequence[float], *, warmup_fraction: float) -> None:
    """Refuses milestones that do not ascend, or that the warm-up would hide."""
    if not milestones:
        raise ValueError("multistep needs milestones: the shares of the steps after which the learning rate falls")
    if list(milestones) != sorted(set(milestones)) or milestones[0] < warmup_fraction:
        raise ValueError(
            f"milestones should ascend, none inside the warm-up of {warmup_fraction:g}, found {list(milestones)}"
        )


def refuse_idle(record: Any, names: Sequence[str], *, because: str) -> None:
    """Refuses keys that would be ignored, as far as they can be told from their defaults."""
    fields = type(record).__dataclass_fields__
    idle = [name for name in names if getattr(record, name) != fields[name].default]
    if idle:
        them = "it" if len(idle) == 1 else "them"
        raise ValueError(f"{' and '.join(idle)} would be ignored, because {because}; leave {them} out")
