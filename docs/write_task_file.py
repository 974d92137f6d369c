"""Writes task-file.md from the schema, so that it says what the program does: `./run docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fitune.config import KNOWN, ApproachConfig, Custom, Data, Judge, RowCaps, Task
from fitune.taskproblems import limit_of

TARGET = Path(__file__).with_name("task-file.md")

INTRODUCTION = """\
# The task file

<!-- Written by docs/write_task_file.py from the schema in src/fitune/config/: edit there. -->

A task file is one YAML file that says what is asked, of which rows, how it is judged, and which
ways are tried. Two lines are enough:

```yaml
kind: classify
data: {train: reviews.csv}
```

Every other field has a default. A dash (–) means none, or one that fitune chooses from the model
and the data: the value chosen is printed by `fitune ladder TASK.yaml --plan` and written into the
[run folder](run-folder.md). A field that is not listed here is refused.

**A field from the command line.** `--set data.max_rows.train=100` or `--set approaches.0.rank=8`
changes one field for one call; list positions count from 0 and the value is YAML.

**Paths.** A relative path names what lies beside the task file if it is there, else what lies in
the working directory (for a path given by `--set`, the other way round). `output` always counts
from the working directory. An approach's `model` is a path only if it contains a `/` or ends in
`.gguf`.

**Help while you type.** `fitune check --schema > task.schema.json` writes a JSON Schema. Editors
with the YAML language server (VS Code with the extension "YAML", Neovim, …) complete and check a
task file whose first line is

```yaml
# yaml-language-server: $schema=task.schema.json
```
"""


def text() -> str:
    """The whole page."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield INTRODUCTION
    yield "## The task\n"
    yield _table(Task)
    yield "## `data`\n"
    yield _table(Data)
    yield "## `data.max_rows`\n"
    yield f"{_doc(RowCaps)}\n"
    yield _table(RowCaps)
    yield "## `judge`\n"
    yield f"{_doc(Judge)}\n"
    yield _table(Judge)
    yield "## `approaches`\n"
    yield (
        "A list, cheapest first. Each entry says which approach it is with `use:` and may set "
        "these, and the options of its kind:\n"
    )
    yield _table(ApproachConfig)
    for name, model in KNOWN.items():
        own = [field for field in model.model_fields if field not in ApproachConfig.model_fields]
        yield f"### `use: {name}`\n"
        if model.__doc__ and model.__doc__ != ApproachConfig.__doc__:
            yield f"{_doc(model)}\n"
        yield _table(model, own) if own != ["use"] else "No options of its own.\n"
    yield "### `use: package.module:Class`\n"
    yield f"{_doc(Custom)}\n"
    yield _table(Custom, ["use", "options"])


def _doc(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").replace("\n", " ")


def _table(model: type[BaseModel], fields: list[str] | None = None) -> str:
    rows = ["| field | is | default | |", "|---|---|---|---|"]
    for name in fields or model.model_fields:
        if name == "use" and model is not Custom:
            continue
        field = model.model_fields[name]
        default = "**required**" if field.is_required() else _value(field.default)
        description = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {limit_of(model, name)} | {default} | {description} |")
    return "\n".join(rows) + "\n"


def _value(default: Any) -> str:
    if default is None or isinstance(default, BaseModel) or default in ((), {}):
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET}")
