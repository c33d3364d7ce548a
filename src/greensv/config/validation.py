"""Plain data → frozen dataclass: strict about types and unknown keys, and every mistake named with its path."""

import dataclasses
import functools
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

from greensv.errors import did_you_mean

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

Record = TypeVar("Record")

MAX_DEPTH = 50
"""Tables and lists nested deeper than this are refused; the deepest real key has five levels."""

LARGEST_INTEGER = 2**63 - 1
"""TOML promises 64 bits, no more, and databases hold no more."""


EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "int_type": "should be a whole number",
        "float_type": "should be a number",
        "bool_type": "should be true or false",
        "string_type": "should be text in quotes",
        "tuple_type": "should be a list",
        "list_type": "should be a list",
        "dict_type": "should be a table",
        "dataclass_type": "should be a table",
    }
)
"""pydantic's names of type errors, in the words of TOML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake: where it is (`recipe.phases[0].crop_s`) and what it is, with a suggestion where there is one."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def validate(record_type: type[Record], data: Any, *, where: str = "") -> tuple[Record | None, list[Problem]]:
    """Returns `data` as a frozen dataclass, or None and every problem found.

    Nothing is guessed: an unknown key is a problem at any depth, and so is a value of another type ("64" or 64.0 for a
    whole number, true for a number). Only a whole number for a real one is accepted, and a list for a tuple.

    Args:
        record_type: a dataclass; its fields may carry annotated-types constraints, its `__post_init__` may raise
            ValueError.
        data: a mapping of its fields.
        where: the path of `data` in the whole configuration, put before each problem's own.
    """
    from pydantic import ValidationError

    clean, problems = _storable(data, where=where)
    record = None
    try:
        # mypy: a class is hashable, but a class of dataclasses without a hash is taken for one of them.
        (record,) = _adapter(cast("Hashable", record_type)).validate_json(json.dumps([clean]))
    except ValidationError as error:
        problems += _problems(record_type, clean, error.errors(include_url=False), where=where, known=problems)
    return (None, problems) if problems else (record, [])


def _storable(value: Any, *, where: str, depth: int = 0) -> tuple[Any, list[Problem]]:
    """Returns `value` without what JSON cannot hold (None in its place), and a problem for each such thing."""
    if depth > MAX_DEPTH:
        return None, [Problem(where=where, what="nested too deeply")]
    problems: list[Problem] = []
    if isinstance(value, Mapping):
        table = {}
        for key, item in value.items():
            if not isinstance(key, str) or not _is_text(key):
                problems.append(Problem(where=where, what=f"keys are text, found {_shown(key)}"))
                continue
            table[key], found = _storable(item, where=f"{where}.{key}" if where else key, depth=depth + 1)
            problems += found
        return table, problems
    if isinstance(value, list | tuple):
        items = []
        for i, item in enumerate(value):
            clean, found = _storable(item, where=f"{where}[{i}]", depth=depth + 1)
            items.append(clean)
            problems += found
        return items, problems
    what = _unstorable(value)
    return (None, [Problem(where=where, what=what)]) if what else (value, [])


def _unstorable(value: Any) -> str | None:
    match value:
        case int() if abs(value) > LARGEST_INTEGER:
            return f"too large a number; whole numbers reach from -{LARGEST_INTEGER} to {LARGEST_INTEGER}"
        case float() if not math.isfinite(value):
            return f"should be a finite number, found {value}"
        case str() if not _is_text(value):
            return f"not UTF-8 text, found {_shown(value)}"
        case None | bool() | int() | float() | str():
            return None
    return f"a {type(value).__name__} is used nowhere in a study; write it as text in quotes"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.cache
def _adapter(record_type: Hashable) -> "TypeAdapter[tuple[Any]]":
    """A tuple of one record: so the settings hold for the record and all inside it without being written onto them."""
    from pydantic import ConfigDict, TypeAdapter

    one_record: Any = tuple.__class_getitem__(record_type)
    return TypeAdapter(one_record, config=ConfigDict(extra="forbid", strict=True))


def _problems(
    record_type: type, data: Any, details: Sequence["ErrorDetails"], *, where: str, known: Sequence[Problem]
) -> list[Problem]:
    """One problem per place; a place where several types would do gets their messages joined."""
    seen = {problem.where for problem in known}
    found: dict[str, list[str]] = {}
    for detail in details:
        if _echoes_inner_mistake(detail, details):
            continue
        path = _path(detail, data, where=where)
        if path not in seen:
            found.setdefault(path, []).append(_what(record_type, detail))
    return [Problem(where=path, what=", or ".join(dict.fromkeys(whats))) for path, whats in found.items()]


def _echoes_inner_mistake(detail: "ErrorDetails", details: Sequence["ErrorDetails"]) -> bool:
    """A list whose items are all mistaken is also reported as too short; the items' own mistakes say it better."""
    location = detail["loc"]
    return detail["type"] == "too_short" and any(
        len(d["loc"]) > len(location) and d["loc"][: len(location)] == location for d in details
    )


def _path(detail: "ErrorDetails", data: Any, *, where: str) -> str:
    """Writes a location as a path, without the branch of a union, which pydantic names but the data does not hold."""
    path, current = where, data
    location = detail["loc"][1:]
    for i, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
            current = current[part] if isinstance(current, list) and part < len(current) else None
        elif isinstance(current, dict) and (part in current or (_is_missing(detail) and i == len(location) - 1)):
            path += f".{part}" if path else part
            current = current.get(part)
    return path


def _is_missing(detail: "ErrorDetails") -> bool:
    return detail["type"].startswith("missing")


def _what(record_type: type, detail: "ErrorDetails") -> str:
    value, context, location = detail["input"], detail.get("ctx", {}), detail["loc"][1:]
    if _is_missing(detail):
        return "missing; it has no default"
    match detail["type"]:
        case "unexpected_keyword_argument":
            known = _fields_at(record_type, location[:-1])
            return f"unknown key{did_you_mean(str(location[-1]), known)} (known: {', '.join(known) or 'none'})"
        case "value_error":
            return str(context["error"])
        case "too_short" | "string_too_short" if context["min_length"] == 1:
            return "should not be empty"
    return f"{_expected(detail)}, found {_shown(value)}{_advice(detail)}"


def _expected(detail: "ErrorDetails") -> str:
    return EXPECTED.get(detail["type"]) or detail["msg"].replace("Input should", "should")


def _advice(detail: "ErrorDetails") -> str:
    if not isinstance(detail["input"], str):
        return ""
    match detail["type"]:
        case "int_type" | "float_type" | "bool_type":
            return "; write it without quotes"
        case "tuple_type" | "list_type":
            return "; write it in brackets"
        case "literal_error":
            options = detail["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return did_you_mean(detail["input"], options)
    return ""


def _fields_at(record_type: type, location: Sequence[int | str]) -> list[str]:
    current = record_type
    for part in location:
        hints = get_type_hints(current, include_extras=True)
        inside = _arguments(hints[part]) if part in hints else ()
        current = next((c for c in inside if isinstance(c, type) and dataclasses.is_dataclass(c)), current)
    return [field.name for field in dataclasses.fields(current)]


def _arguments(hint: Any) -> Iterable[Any]:
    yield hint
    for argument in get_args(hint):
        yield from _arguments(argument)


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
