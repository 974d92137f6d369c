"""A run that goes on: what must be as it was when it began, and what may be another; and which
rungs of earlier runs can stand for those of a new one.

Knows run folders, tasks and rows; knows nothing of what is computed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fitune.config import MAY_CHANGE, Data, Task
from fitune.data.rows import Splits
from fitune.errors import ConfigError, FituneError, RunError
from fitune.ladder.asked import Asked
from fitune.ladder.climb import Entry
from fitune.models.source import resolve_source
from fitune.retrieval.chunking import Chunking, cut
from fitune.retrieval.documents import read_documents
from fitune.runs import Run, explain_damage, open_run, write_json
from fitune.saved import read_task
from fitune.taskfile import parse_task
from fitune.taskproblems import near


def resumed(
    folder: Path,
    task: Task | None,
    overrides: Sequence[str],
    verb: str,
    rung: str | None,
) -> tuple[Run, Task, str | None]:
    """A run to go on with, its task, and the rung that it tunes; nothing is written.

    Args:
        task: to be compared, with the overrides applied; None: the run's own counts.
        overrides: for the run's own task.
        verb: that is to go on.
        rung: that is to be tuned; None: the one that the run tunes.

    Raises:
        ConfigError: an override changes what must stay as it was, or no field at all.
        RunError: no run, damaged, of another verb, rung or task.
    """
    run = open_run(folder)
    known = read_task(run)
    wanted = task or known
    if overrides:
        wanted = parse_task(known.model_dump(), overrides, where=str(folder / "task.json"))
    if _fixed(wanted) != _fixed(known):
        if overrides:
            raise ConfigError(
                f"of a run that has begun, --set can change only {' and '.join(MAY_CHANGE)}",
                fix="leave out the other --set, or start a new run",
            )
        raise RunError(
            f"the task given differs from the one that run '{folder}' was started with",
            fix="leave the task out, or start a new run",
        )
    with explain_damage(folder / "verb.json"):
        started = run.read("verb.json")
        its_verb, its_rung = str(started["verb"]), started["rung"]
    if its_verb != verb:
        raise RunError(
            f"the run '{folder}' was started by fitune {its_verb}, not by fitune {verb}",
            fix=f"go on with `fitune {its_verb} --resume {folder}`",
        )
    if rung not in (None, its_rung):
        raise RunError(
            f"the run '{folder}' tunes '{its_rung}', not '{rung}'",
            fix="leave out --rung, or start a new run",
        )
    return run, wanted, its_rung


def go_on(run: Run, task: Task, splits: Splits) -> None:
    """Refuse other rows than the run was started with, and record what was changed.

    Raises:
        RunError: the rows differ.
    """
    with explain_damage(run.folder / "data.json"):
        known = run.read("data.json")["hash"]
    if known != splits.content_hash:
        raise RunError(
            f"the rows changed since run '{run.folder}' was started, so its rungs could not be "
            "compared",
            fix="restore the data files, or start a new run",
        )
    if read_task(run) != task:
        write_json(run.folder / "task.json", task.model_dump(mode="json"))


def _fixed(task: Task) -> dict[str, Any]:
    """A task without what may change."""
    facts = task.model_dump(mode="json")
    for approach in facts["approaches"]:
        for name in MAY_CHANGE:
            approach.pop(name, None)
    return facts


def only(entries: Sequence[Entry], asked: Asked, run: Run | None) -> list[Entry]:
    """The entries asked for, in the ladder's order, and those that `run` has finished; all of them
    where no names are given.

    Raises:
        ConfigError: no entry is called so, or the curve is of one that is left out.
    """
    known = [entry.name for entry in entries]
    for name in asked.rungs:
        if name not in known:
            raise ConfigError(f"the task has no rung '{name}'", fix=near(name, known))
    done = {name for name in known if run is not None and run.has(f"rungs/{name}/rung.json")}
    left = [e for e in entries if not asked.rungs or e.name in {*asked.rungs, *done}]
    if asked.curve and asked.curve not in (names := [entry.name for entry in left]):
        raise ConfigError(
            f"--curve names '{asked.curve}', which is no rung of this ladder",
            fix=near(asked.curve, names),
        )
    return left


def passages_of(task: Task) -> list[str]:
    """The passages that the task's documents are cut into; none where it names none.

    Raises:
        DataError: a file is missing or damaged.
    """
    named = task.data.documents
    sources = [named] if isinstance(named, str) else [*(named or ())]
    documents = [document for source in sources for document in read_documents(source)[0]]
    return [passage.text for passage in cut(documents, Chunking())]


def earlier_runs(output: Path, run: Run) -> list[Path]:
    """The other run folders beside `run`, the newest first."""
    if not output.is_dir():
        return []
    found = [p for p in output.iterdir() if p != run.folder and (p / "task.json").is_file()]
    return sorted(found, key=lambda p: (p / "task.json").stat().st_mtime, reverse=True)


_ROWS = frozenset(Data.model_fields) - {"too_long", "documents"}
"""Fields of `data` that decide only which rows there are; the splits' hash tells that."""

_ELSEWHERE = frozenset(
    ["name", "target", "approaches", "track", "download", "output", "data", "judge"]
)
"""Fields of a task that change no rung, or that its own options stand for."""

_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""``package.module:name``: code of the user's own, whose content is not known here."""


def rung_keys(
    entries: Sequence[Entry],
    options: Mapping[str, Mapping[str, Any]],
    task: Task,
    splits: Splits,
    metric: str,
    made_on: Mapping[str, Any],
) -> list[Entry]:
    """The entries, each with the digest of everything that it depends on, files by their content.

    An entry has none where code of the user's own takes part: it may be another next time under the
    same name.

    Args:
        options: by entry, as its approach is made for this task.
        made_on: the environment of the run; what changes from minute to minute is left out.
    """
    machine = {k: v for k, v in made_on["machine"].items() if k in ("cpu", "cores", "native_bf16")}
    machine["gpus"] = [gpu["name"] for gpu in made_on["machine"].get("gpus") or ()]
    common = [
        splits.content_hash,
        metric,
        task.model_dump(mode="json", exclude=set(_ELSEWHERE)),
        task.data.model_dump(mode="json", exclude=set(_ROWS)),
        {**made_on, "machine": machine},
    ]
    contents: dict[str, str | None] = {}
    keyed = []
    for entry in entries:
        own = {name: value for name, value in options[entry.name].items() if name != "name"}
        facts = [entry.use, entry.max_train_rows, own, *common]
        words = sorted(set(_words([entry.use, own, *common[1:4]])))
        for word in words:
            if word not in contents:
                contents[word] = _content(word)
        files = {word: contents[word] for word in words if contents[word] is not None}
        text = json.dumps([facts, files], sort_keys=True, default=str)
        code = any(_CODE.fullmatch(word) for word in words)
        key = None if code else hashlib.sha256(text.encode()).hexdigest()
        keyed.append(replace(entry, key=key))
    return keyed


def _words(value: Any) -> Iterator[str]:
    """Every string in nested options, and what stands behind an @ in one: a metric's model."""
    if isinstance(value, str):
        yield value
        if "@" in value:
            yield value.rpartition("@")[2]
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _words(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _words(inner)


def _content(word: str) -> str | None:
    """The digest of the model, the file or the folder that a word of the options names; None where
    it names none."""
    if not word or len(word) > 1000 or "\n" in word or "\0" in word:
        return None
    path = Path(word).expanduser()
    if not path.exists():
        try:
            path = resolve_source(word).folder
        except FituneError:
            return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as opened:
                while part := opened.read(1 << 20):
                    digest.update(part)
    return digest.hexdigest()
