"""From a task file to a checked `Task`, and from each mistake in it to one clear sentence.

Knows YAML, overrides and how to say what is wrong where; knows nothing of what the fields mean
beyond `config`'s shape. Reads no data and loads no model.

Paths in a task file: a relative path (`data.train`, `data.validation`, `data.test`,
`data.documents`, `chat_template`, an approach's `adapter`, and its `model` if it contains a `/` or
ends in `.gguf`) names what lies beside the task file if it is there, else what lies in the working
directory; for one given by `--set` the working directory comes first. `Task` holds the absolute
path, so that a run can be continued from anywhere; a path found in neither place is kept as
written. `output` always counts from the working directory.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fitune.errors import ConfigError, ResourceError
from fitune.taskproblems import KeyPath, Place, dotted, explain, kind_of, refuse_surprises, short

if TYPE_CHECKING:
    from fitune.config import Task

# What PyYAML raises for scalars that are not what they look or claim to be: 2024-13-45, !!bool x.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
MERGE_TAG = "tag:yaml.org,2002:merge"


def load_task(path: str | Path, overrides: Sequence[str] = ()) -> Task:
    """The task that a file describes.

    Args:
        path: a YAML file.
        overrides: ``"data.max_rows.train=100"``, ``"approaches.0.rank=8"``; the value is YAML.

    Raises:
        ConfigError: the file is not there, is not YAML, or does not have the shape of a task.
        ResourceError: the file may not be read.
    """
    path = Path(path)
    text = _read(path)
    node = _compose(text, path)
    content = _construct(node, path)
    if content is None:
        raise ConfigError(
            f"the task file {path} is empty",
            fix="start it with `kind: classify` and `data: {train: FILE}`",
        )
    if not isinstance(content, dict):
        raise ConfigError(
            f"the task file {path} must hold `key: value` lines, but holds {kind_of(content)}",
            fix="start it with `kind: classify` and `data: {train: FILE}`",
        )
    return parse_task(content, overrides, where=str(path), folder=path.parent, node=node)


def parse_task(
    content: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    where: str = "the task",
    folder: Path | None = None,
    node: yaml.Node | None = None,
) -> Task:
    """The task that a mapping describes.

    Args:
        content: what a task file holds.
        overrides: as for `load_task`.
        where: named in errors.
        folder: what relative paths are looked up in first; default: the working directory.
        node: the YAML tree of `content`, for line numbers in errors.

    Raises:
        ConfigError: `content` does not have the shape of a task.
    """
    from pydantic import ValidationError

    from fitune.config import Task

    given = dict(content)
    changed = [_apply(given, override) for override in overrides]
    place = Place(where, node, changed)
    try:
        task = Task.model_validate(given)
    except ValidationError as error:
        raise explain(error, given, place) from None
    except RecursionError:
        raise ConfigError(
            f"{where} contains itself through a YAML alias (`*name`)",
            fix="write the repeated part out",
        ) from None
    refuse_surprises(given, task.model_dump(), (), place)
    found = _with_paths(task.model_dump(exclude_unset=True), folder or Path(), changed)
    return Task.model_validate(found)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a task file, for editors."""
    from fitune.config import KNOWN, Task

    schema = Task.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A fitune task file"
    definitions = schema["$defs"]
    for name, model in KNOWN.items():
        definition = definitions[model.__name__]
        definition["properties"]["use"] = {"const": name}
        definition["required"] = ["use", *definition.get("required", [])]
    # Without this a misspelt option of a known approach would be judged as a custom approach.
    definitions["Custom"]["properties"]["use"]["not"] = {"enum": list(KNOWN)}
    return schema


# Reading the file.


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no task file {path}", fix=_near_files(path)) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a task file", fix=_near_files(path)) from None
    except PermissionError:
        raise ResourceError(
            f"the task file {path} may not be read", fix=f"give yourself access: chmod u+r {path}"
        ) from None
    except (OSError, ValueError) as error:  # a name that is too long or holds a null byte
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the task file {short(str(path))} cannot be opened ({reason})",
            fix="check its name",
        ) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path} line {line} is not UTF-8 (byte 0x{raw[error.start]:02x})",
            fix="save the file as UTF-8",
        ) from None


def _near_files(path: Path) -> str:
    """Which file may have been meant: names beside it, or task files in a folder."""
    folder = path if path.is_dir() else path.parent
    try:
        files = [p for p in folder.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file()]
    except OSError:
        return f"the folder {folder} is not there either"
    if not files:
        return f"no YAML file is in {'this folder' if folder == Path() else folder}"
    by_name = {p.name: str(p) for p in files}
    wanted = difflib.get_close_matches(path.name, by_name, n=2, cutoff=0.5)
    names = wanted or sorted(by_name)[:3]
    return "did you mean " + " or ".join(by_name[name] for name in names)


class _Loader(yaml.SafeLoader):
    """Plain YAML values, and each key of a mapping once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # YAML itself lets the last of two equal keys win, silently.
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == MERGE_TAG or not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key.value}' appears twice, in lines {lines[key.value]} "
                    f"and {line}"
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)


def _compose(text: str, path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise ConfigError(
            f"{path} is nested too deeply", fix="a task file needs five levels at most"
        ) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{path} holds the character U+{_code(error.character):04X}, which YAML does not allow",
            fix="remove it",
        ) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, path) from None


def _code(character: int | str | bytes) -> int:
    return character if isinstance(character, int) else ord(character)


def _syntax(error: yaml.MarkedYAMLError, text: str, path: Path) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return ConfigError(f"{path} is not YAML: {error.problem}", fix="mend it")
    where = f"{path} line {mark.line + 1}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1]:
        return ConfigError(
            f"{where} is indented with a tab, which YAML does not allow", fix="use spaces"
        )
    if "expected a single document" in (error.context or "") + (error.problem or ""):
        return ConfigError(
            f"{where} starts a second document (`---`)", fix="keep one task in a file"
        )
    if "mapping values are not allowed" in (error.problem or ""):
        return ConfigError(
            f"{where} has a ': ' where no key can stand",
            fix="put a text that contains ': ' in quotes, and check the indentation",
        )
    problem = " ".join(p for p in (error.context, error.problem) if p)
    return ConfigError(
        f"{where} column {mark.column + 1} is not YAML ({problem})",
        fix="check the quotes, brackets and indentation there",
    )


def _construct(node: yaml.Node | None, path: Path) -> Any:
    if node is None:
        return None
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        if error.problem_mark is None:
            raise ConfigError(f"{path}: {error.problem}", fix="keep one of the two") from None
        raise ConfigError(
            f"{path} line {error.problem_mark.line + 1} holds a value that a task file cannot "
            f"({error.problem})",
            fix="write plain text, numbers, lists and mappings only",
        ) from None
    except UNREADABLE as error:
        raise ConfigError(
            f"{path} holds a value that YAML cannot read ({error})", fix="put it in quotes"
        ) from None
    finally:
        loader.dispose()


# Overrides.


def _apply(given: dict[str, Any], override: str) -> KeyPath:
    """Change one value in place and return its path. Containers on the way are copied, so that
    the caller's mapping, and what YAML aliases share, stay as they were."""
    name, equals, written = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(
            f"the override '{short(override, quote=False)}' is not of the form field=value",
            fix="write it like --set seed=1 or --set approaches.0.rank=8",
        )
    try:
        value = yaml.load(written, Loader=_Loader)
    except (yaml.YAMLError, *UNREADABLE):
        raise ConfigError(
            f"the value of the override '{short(override, quote=False)}' is not a YAML value",
            fix="put it in quotes: --set 'field=\"value\"'",
        ) from None
    keys = name.strip().split(".")
    at: Any = given
    path: list[str | int] = []
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        index: str | int = key
        if isinstance(at, list):
            index = _index(key, at, path)
        elif not isinstance(at, dict):
            parent = dotted(tuple(path))
            raise ConfigError(
                f"--set {name} reaches into '{parent}', which is {kind_of(at)}",
                fix=f"set {parent} itself",
            )
        path.append(index)
        if last:
            at[index] = value
        else:
            below = at[index] if isinstance(index, int) else at.get(key)
            if isinstance(below, tuple):  # as `Task.model_dump` gives it
                below = list(below)
            below = {} if below is None else below
            if key == "approaches" and not isinstance(below, list):
                raise ConfigError(
                    f"--set {name} changes an approach, but the task lists none",
                    fix="list them under `approaches:` in the task file",
                )
            at[index] = below.copy() if isinstance(below, (dict, list)) else below
            at = at[index]
    return tuple(path)


def _index(key: str, items: list[Any], path: list[str | int]) -> int:
    if not key.isascii() or not key.isdigit() or int(key) >= len(items):
        parent = dotted(tuple(path))
        count = f"holds {len(items)}, counted from 0" if items else "is empty"
        raise ConfigError(
            f"'{key}' is no position in '{parent}', which {count}",
            fix=f"write a number from 0 to {len(items) - 1}" if items else f"fill {parent} first",
        )
    return int(key)


# Paths.


def _with_paths(task: dict[str, Any], folder: Path, changed: Sequence[KeyPath]) -> dict[str, Any]:
    """`task` with every relative path that exists made absolute, in place."""

    def resolve(value: Any, *where: str | int) -> Any:
        if not isinstance(value, str) or value.startswith(("sample:", "hub:")) or "\0" in value:
            return value
        places = [folder, Path()]
        if any(where[: len(path)] == path for path in changed):
            places.reverse()
        for place in places:
            try:
                candidate = place / Path(value).expanduser()
                if candidate.exists():
                    return str(candidate.resolve())
            except (OSError, RuntimeError):  # too long a name; no such user's home
                return value
        return value

    def model(value: Any, *where: str | int) -> Any:
        # A bare name is a model of the catalogue or the Hub, whatever folder lies about.
        is_path = isinstance(value, str) and ("/" in value or value.endswith(".gguf"))
        return resolve(value, *where) if is_path else value

    data = task["data"]
    for split in {"train", "validation", "test"} & data.keys():
        data[split] = resolve(data[split], "data", split)
    if isinstance(where := data.get("documents"), str):
        data["documents"] = resolve(where, "data", "documents")
    elif where:
        data["documents"] = tuple(
            resolve(place, "data", "documents", n) for n, place in enumerate(where)
        )
    if task.get("chat_template", "auto") not in ("auto", "default"):
        task["chat_template"] = resolve(task["chat_template"], "chat_template")
    for number, approach in enumerate(task.get("approaches", ())):
        if "model" in approach:
            approach["model"] = model(approach["model"], "approaches", number, "model")
        if approach.get("adapter") is not None:
            approach["adapter"] = resolve(approach["adapter"], "approaches", number, "adapter")
    if "trust_remote_code" in task:  # names the same models, so it must be spelt the same way
        task["trust_remote_code"] = [
            model(name, "trust_remote_code", number)
            for number, name in enumerate(task["trust_remote_code"])
        ]
    return task
