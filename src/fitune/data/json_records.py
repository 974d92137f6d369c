"""JSON and JSON Lines: text → records, each with the line it begins on.

Knows JSON; knows nothing of files' encodings or of what fields mean. The outer list is walked here,
value by value, because the standard library forgets where a value stood.
"""

from __future__ import annotations

import json
from typing import Any

from fitune.data.table import Record, Table, Text
from fitune.errors import DataError


class _Broken(Exception):
    """(position in the text, what is wrong there)."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        key = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _Broken(None, f"the key {key!r} appears twice in one object")
    return values


_decoder = json.JSONDecoder(object_pairs_hook=_object)
_BLANK = " \t\r\n"


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def _value(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at `position`, and where it ends."""
    try:
        return _decoder.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise _Broken(error.pos, error.msg) from None
    except _Broken as error:
        raise _Broken(position, error.args[1]) from None
    except RecursionError:
        raise _Broken(position, "objects are nested too deeply") from None
    except ValueError as error:  # e.g. an integer of more than 4,300 digits
        raise _Broken(position, str(error).split(";")[0]) from None


def _members(text: str, position: int) -> tuple[list[tuple[str | None, Any, int]], int]:
    """(key, value, start of the value) of each member of the list or object that begins at
    `position` (the key is None in a list), and where it ends. The json module keeps no positions,
    without which an error could not name its line."""
    close = {"[": "]", "{": "}"}[text[position]]
    members: list[tuple[str | None, Any, int]] = []
    keys: set[str] = set()
    position = _skip(text, position + 1)
    if text[position : position + 1] == close:
        return members, position + 1
    while True:
        key = None
        if close == "}":
            begin = position
            key, position = _value(text, position)
            position = _skip(text, position)
            if not isinstance(key, str) or text[position : position + 1] != ":":
                raise _Broken(begin, "expecting a name in quotation marks and ':'")
            if key in keys:
                raise _Broken(begin, f"the key {key!r} appears twice in one object")
            keys.add(key)
            position = _skip(text, position + 1)
        value, end = _value(text, position)
        members.append((key, value, position))
        position = _skip(text, end)
        mark = text[position : position + 1]
        if mark == close:
            return members, position + 1
        if mark != ",":
            raise _Broken(position, f"expecting ',' or '{close}'")
        position = _skip(text, position + 1)


def read_json_text(file: Text) -> Table:
    text = file.text
    begin = _skip(text, 0)
    try:
        if text[begin] not in "[{":
            raise _Broken(begin, "expecting a list of objects")
        members, end = _members(text, begin)
        if (rest := _skip(text, end)) < len(text):
            if text[begin] == "{" and text[rest] == "{" and "\n" in text[end:rest]:
                return _lines_in_json(file)
            raise _Broken(rest, "expecting the end of the file")
        notes: tuple[str, ...] = ()
        if text[begin] == "{":
            lists = [(key, start) for key, value, start in members if _is_table(value)]
            if len(lists) != 1:
                raise _not_a_table(file.name, members, [str(key) for key, _ in lists])
            key, start = lists[0]
            members, _ = _members(text, start)
            notes = (f"{file.name}: rows are the list under {key!r}",)
    except _Broken as error:
        raise _broken(file, *error.args) from None
    return Table(_records(file, members), notes)


def _records(file: Text, members: list[tuple[str | None, Any, int]]) -> tuple[Record, ...]:
    """Lines are counted once, from element to element: counting from the top for each is slow."""
    records, line, seen = [], 1, 0
    for _, value, start in members:
        line, seen = line + file.text.count("\n", seen, start), start
        records.append(Record(_as_object(value, f"{file.name}:{line}"), f"{file.name}:{line}"))
    if not records:
        raise DataError(f"{file.name} is an empty list", fix="name a file with at least one row")
    return tuple(records)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _not_a_table(name: str, members: list[Any], lists: list[str]) -> DataError:
    if lists:
        return DataError(
            f"{name} holds {len(lists)} lists of objects ({', '.join(lists)}) and not one",
            fix="save the one you want as a file of its own",
        )
    keys = ", ".join(str(key) for key, _, _ in members[:8]) or "none"
    return DataError(
        f"{name} is one object without a list of objects (its keys: {keys})",
        fix="write a list with one object a row (pandas: to_json(orient='records'))",
    )


def _lines_in_json(file: Text) -> Table:
    if not file.guess:
        raise DataError(
            f"{file.name} holds one object a line and not one list", fix="set data.format: jsonl"
        )
    table = read_jsonl_text(file)
    return Table(table.records, (f"{file.name}: read as JSONL, one object a line",))


def read_jsonl_text(file: Text) -> Table:
    records = []
    begin = 0
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    for number, line in enumerate(file.text.split("\n"), start=1):
        if line.strip(_BLANK):
            try:
                value, end = _value(line, _skip(line, 0))
                if (rest := _skip(line, end)) < len(line):
                    raise _Broken(rest, "expecting the end of the line")
            except _Broken as error:
                raise _broken(file, begin + error.args[0], error.args[1]) from None
            records.append(
                Record(_as_object(value, f"{file.name}:{number}"), f"{file.name}:{number}")
            )
        begin += len(line) + 1
    return Table(tuple(records))


def _broken(file: Text, position: int, problem: str) -> DataError:
    line = file.text.count("\n", 0, position) + 1
    column = position - (file.text.rfind("\n", 0, position) + 1) + 1
    problem = problem[:1].lower() + problem[1:]
    return DataError(
        f"{file.name}:{line} is not valid JSON at column {column}: {problem}",
        fix="mend this line, or write the file with a JSON library",
    )


def _as_object(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise DataError(
        f"{source} is {_kind(value)} and not an object with named columns",
        fix='write each row as {"column": value, ...}',
    )


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
