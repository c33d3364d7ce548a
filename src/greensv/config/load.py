"""study.toml → `StudyConfig`: every mistake reported at once, with its path and a suggestion."""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from greensv.config.study import StudyConfig
from greensv.config.validation import Problem, validate
from greensv.errors import ConfigError

__all__ = ["Check", "Problem", "differences", "merge", "parse_study", "read_toml", "to_json", "validate"]

Check = Callable[[Mapping[str, Any]], Sequence[Problem]]
"""Looks at the whole raw configuration for what only the installed components know.

It is called whether or not the configuration is otherwise right, so that all mistakes come out at once: it must bear a
missing table or a value of the wrong type, and leave those to others to report.
"""


_FOLDERS = (
    (("dataset",), "root"),
    (("recipe", "augmentation"), "noise_root"),
    (("recipe", "augmentation"), "rir_root"),
)


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the tables of a TOML file; relative folders are made absolute, relative to the file.

    These are `dataset.root`, and `noise_root` and `rir_root` in `recipe.augmentation`.

    Args:
        path: the file, or the folder that holds it as `study.toml`.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML, or a folder can be no path.
    """
    try:
        # utf-8-sig: editors on Windows put a byte order mark first, which TOML does not allow.
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"no study file {path}; give the path of a study.toml") from None
    except IsADirectoryError:
        return read_toml(path / "study.toml")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    except ValueError as error:  # TOMLDecodeError, and integers of more digits than Python reads
        raise ConfigError(f"{path} is no valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is no study: its lists or tables are nested too deeply") from None
    for tables, key in _FOLDERS:
        table: Any = data
        for name in tables:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(table.get(key), str):
            table[key] = _absolute(table[key], key=".".join((*tables, key)), study_file=path)
    return data


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with the tables of `override` laid over it, key by key; None in `override` leaves the base."""
    merged = dict(base)
    for key, value in override.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            old = merged.get(key)
            merged[key] = merge(old if isinstance(old, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def parse_study(data: Mapping[str, Any], *, source: str, checks: Iterable[Check] = ()) -> StudyConfig:
    """Returns the study that `data` describes.

    Args:
        data: the tables, as read from TOML or stored with a study.
        source: where they come from, for the message.
        checks: find what only the installed components know (options of a dataset, the space of a backbone).

    Raises:
        ConfigError: naming all problems, each with its path.
    """
    config, problems = validate(StudyConfig, data)
    for check in checks:
        problems += check(data)
    problems = list(dict.fromkeys(problems))
    if problems or config is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise ConfigError(f"{source} has {count}:\n{lines}")
    return config


def to_json(config: StudyConfig) -> str:
    """Returns the configuration as JSON with sorted keys: equal configurations give equal text."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True, allow_nan=False)


def differences(old: Any, new: Any, *, where: str = "") -> list[str]:
    """Returns one line per value that differs, such as `recipe.phases[0].num_epochs: 3 → 5`.

    A key that is absent equals one that is None; a tuple equals a list of the same items.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys: list[Any] = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), where=f"{where}.{key}" if where else str(key))
        ]
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        length = max(len(old), len(new))
        return [
            line
            for i in range(length)
            for line in differences(
                *(items[i] if i < len(items) else None for items in (old, new)), where=f"{where}[{i}]"
            )
        ]
    # True == 1 in Python, not in a configuration.
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [f"{where}: {_shown_difference(old)} → {_shown_difference(new)}"]


def _shown_difference(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _absolute(root: str, *, key: str, study_file: Path) -> str:
    try:
        return str((study_file.parent / Path(root).expanduser()).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a loop of links, a name with a zero byte
        raise ConfigError(f"{study_file}: {key}: {root!r} is no usable path: {error}") from error
