"""What is wrong in a task, in one sentence with the place, the value, the limit and the fix.

Knows the shape in `config` and pydantic's errors about it; knows nothing of files or overrides
beyond where a value stands in them.
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from fitune.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of a task file to a value."""


def near(word: str, names: Iterable[str]) -> str:
    """``"did you mean 'rank'"`` when one of `names` resembles `word`, else the names that exist."""
    names = sorted(names)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lower, n=2, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{lower[name]}'" for name in close)
    return "it can be " + ", ".join(names) if names else "there is nothing to choose from"


class Place:
    """Says where in the user's files a value stands."""

    def __init__(self, where: str, node: yaml.Node | None, changed: Sequence[KeyPath]) -> None:
        self.where, self.node, self.changed = where, node, changed

    def of(self, path: KeyPath) -> str:
        if any(path[: len(change)] == change for change in self.changed):
            return "--set"
        line = _line(self.node, path)
        return f"{self.where} line {line}" if line else self.where


def _line(node: yaml.Node | None, path: KeyPath) -> int | None:
    """The line of the deepest part of `path` that is written in the file."""
    line = None
    for key in path:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(key)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            if key >= len(node.value):
                break
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def explain(error: ValidationError, given: dict[str, Any], place: Place) -> ConfigError:
    """The first problem as a sentence. An unknown field comes before a missing one: it is often
    the same field, misspelt."""
    order = {"extra_forbidden": 0, "missing": 1}
    problems = sorted(error.errors(include_url=False), key=lambda e: order.get(e["type"], 2))
    problem, fix = _sentence(problems[0], given, place)
    # A union reports each of its alternatives: places are counted, not reports.
    more = len({_user_path(each["loc"]) for each in problems}) - 1
    if more:
        problem += f" (and {more} more problem{'s' if more > 1 else ''})"
    return ConfigError(problem, fix=fix)


def _sentence(detail: ErrorDetails, given: dict[str, Any], place: Place) -> tuple[str, str]:
    from fitune.config import KNOWN

    kind, raw_path, value = detail["type"], detail["loc"], detail["input"]
    path = _user_path(raw_path)
    where, name = place.of(path), dotted(path)
    model = _model_at(raw_path[:-1])
    approach = _at(given, path[:2]) if path[:1] == ("approaches",) else None
    if isinstance(approach, dict) and "custom" in raw_path[2:3]:
        use = approach.get("use")
        if use is None:
            return (
                f"{where}: approaches.{path[1]} does not say which approach it is",
                f"add `use:` with one of {', '.join(KNOWN)}",
            )
        if isinstance(use, str) and ":" not in use and kind == "extra_forbidden":
            return f"{where}: there is no approach '{short(use, quote=False)}'", near(use, KNOWN)
    if kind == "extra_forbidden":
        parent = f" in {dotted(path[:-1])}" if path[:-1] else ""
        return (
            f"{where}: there is no field '{short(str(path[-1]), quote=False)}'{parent}",
            near(str(path[-1]), model.model_fields) if model else "remove it",
        )
    if kind == "missing":
        target = _model_at(raw_path)
        what = f"with {', '.join(target.model_fields)}" if target else limit_of(model, path[-1])
        return f"{where}: '{name}' is missing", f"add `{path[-1]}:` {what}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        if path[:1] == ("approaches",) and len(path) == 2:
            return (
                f"{where}: {name} must be `use: NAME` with its options, but is {kind_of(value)}",
                f"write `use: {value}`" if isinstance(value, str) else "write `use: majority`",
            )
        target = _model_at(raw_path)
        names = ", ".join(target.model_fields) if target else "key: value"
        return f"{where}: '{name}' must hold fields, but is {kind_of(value)}", f"give it {names}"
    if kind in ("tuple_type", "list_type"):
        return f"{where}: '{name}' must be a list, but is {kind_of(value)}", "write it as `- item`"
    if kind == "invalid_key":
        return f"{where}: the key {short(path[-1])} is not text", "put it in quotes"
    limit = limit_of(model, path[-1]) if path else "a mapping"
    fix = "change it"
    if kind == "string_type" and value is not None and not isinstance(value, (dict, list, tuple)):
        fix = f'put it in quotes: "{short(value, quote=False)}"'
    elif kind == "literal_error" and isinstance(value, str):
        choices = _choices(model, path[-1])
        fix = near(value, choices) if choices else fix
    elif value is None:
        fix = "give it a value or remove the line"
    return f"{where}: '{name}' is {short(value)}, but must be {limit}", fix


_ALTERNATIVES = ("str", "[key]", "bool", "int", "constrained-int")
_COMPOUNDS = ("tuple[", "dict[", "literal[")
"""What pydantic calls the alternatives of a union."""


def _user_path(location: KeyPath) -> KeyPath:
    """Without pydantic's own names: the kind of an approach after its number, and which
    alternative of a union was tried."""
    if location[:1] == ("approaches",):
        location = (*location[:2], *location[3:])
    for depth, key in enumerate(location):
        if isinstance(key, str) and (key in _ALTERNATIVES or key.startswith(_COMPOUNDS)):
            return location[:depth]
    return location


def _model_at(location: KeyPath) -> type[BaseModel] | None:
    """The part of the shape that `location` names."""
    from fitune.config import KNOWN, Custom, Data, Judge, RowCaps, Task

    if location[:1] == ("approaches",):
        return KNOWN.get(str(location[2]), Custom) if len(location) > 2 else None
    parts: dict[KeyPath, type[BaseModel]] = {
        (): Task,
        ("data",): Data,
        ("data", "max_rows"): RowCaps,
        ("judge",): Judge,
    }
    return parts.get(location)


def _property(model: type[BaseModel] | None, key: str | int) -> list[dict[str, Any]]:
    """The JSON Schema of one field: its alternatives, without null."""
    if model is None:
        return []
    schema = _properties(model).get(key, {})
    return [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]


@cache
def _properties(model: type[BaseModel]) -> dict[str | int, Any]:
    properties: dict[str | int, Any] = model.model_json_schema()["properties"]
    return properties


def _choices(model: type[BaseModel] | None, key: str | int) -> list[str]:
    return [str(choice) for part in _property(model, key) for choice in part.get("enum", [])]


_PATTERNS = {
    "name": "of at most 64 letters, digits, '.', '_' and '-'",
    "use": "an approach or `package.module:Class`",
    "url": "that begins with http:// or https://",
    "key_env": "of letters, digits and '_', as variables of the environment are called",
}
"""What the regular expression of a field asks for, in words."""


def limit_of(model: type[BaseModel] | None, key: str | int) -> str:
    """What a field may be, in words: from its JSON Schema, so that it cannot drift."""
    if choices := _choices(model, key):
        return "one of " + ", ".join(choices)
    if isinstance(key, int):  # every list of plain values holds text
        return "text"
    words = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "array": "a list of text",
        "object": "a mapping",
    }
    signs = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "of at most",
    }
    parts = []
    for part in _property(model, key):
        if "const" in part:
            parts.append(f"`{part['const']}`")
            continue
        word = words.get(part.get("type", ""), "a mapping with its fields")
        if "oneOf" in part.get("items", {}):
            word = "a list of approaches"
        limited = part
        if isinstance(values := part.get("additionalProperties"), dict) and "type" in values:
            word, limited = f"{word} to {words[values['type']]}", values
        limits = [f"{sign} {limited[limit]:g}" for limit, sign in signs.items() if limit in limited]
        if "pattern" in part:
            limits.append(_PATTERNS.get(str(key), _PATTERNS["name"]))
            word = "" if key == "use" else word
        parts.append(f"{word} {' and '.join(limits)}".strip())
    return " or ".join(parts) or "of another kind"


def refuse_surprises(given: Any, checked: Any, path: KeyPath, place: Place) -> None:
    """Refuse what pydantic would quietly accept: `rank: yes` as 1, and numbers without end."""
    if path[-1:] == ("options",):
        return
    if isinstance(checked, dict) and isinstance(given, Mapping):
        for key in given:
            if key in checked:
                refuse_surprises(given[key], checked[key], (*path, key), place)
    elif isinstance(checked, (list, tuple)) and isinstance(given, (list, tuple)):
        for index, (one, other) in enumerate(zip(given, checked, strict=False)):
            refuse_surprises(one, other, (*path, index), place)
    elif isinstance(checked, (int, float)) and not isinstance(checked, bool):
        if isinstance(given, bool):
            raise ConfigError(
                f"{place.of(path)}: '{dotted(path)}' is {str(given).lower()}, but must be a number",
                fix="YAML reads yes, no, on and off as true and false: write a number",
            )
        if isinstance(checked, float) and not math.isfinite(checked):
            raise ConfigError(
                f"{place.of(path)}: '{dotted(path)}' is {short(given)}, but must be a finite "
                "number",
                fix="change it",
            )


def _at(given: Any, path: KeyPath) -> Any:
    for key in path:
        try:
            given = given[key]
        except (KeyError, IndexError, TypeError):
            return None
    return given


def dotted(path: KeyPath) -> str:
    return ".".join(short(str(key), quote=False) for key in path) or "the task"


def kind_of(value: Any) -> str:
    """A value in the words of YAML."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the switch {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {short(value)}"
    if isinstance(value, str):
        return f"the text {short(value)}"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a mapping" if isinstance(value, dict) else f"of type {type(value).__name__}"


def short(value: Any, *, quote: bool = True) -> str:
    """A value on one line of at most about 80 characters."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date):
        return str(value)
    if isinstance(value, str) and not quote:
        text = "".join(c if c.isprintable() else "�" for c in value)
    else:
        shortener = reprlib.Repr()
        shortener.maxstring = shortener.maxother = shortener.maxlong = 80
        text = shortener.repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
