"""What `check` does: data looked at before anything learns from it.

Knows rows, checks and templates; loads tokenizers but no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fitune import config
from fitune.config import Task
from fitune.data.checks import CHECKS
from fitune.data.load import load_rows, load_splits
from fitune.data.rows import Rows, Splits
from fitune.data.stream import STREAMS
from fitune.data.template import ChatTemplate, Encoded, TextTemplate
from fitune.entries import approaches_of
from fitune.errors import ConfigError, DataError
from fitune.ladder.climb import Watching
from fitune.models.architecture import describe
from fitune.models.load import load_tokenizer
from fitune.models.pooling import read_pooling
from fitune.models.source import ModelSource, resolve_source
from fitune.results import CheckResult, ShownRow
from fitune.taskfile import load_task, parse_task
from fitune.training.defaults import max_length

_LEVELS = ("error", "warning", "info")


def check_data(
    source: str | Path,
    overrides: Sequence[str],
    show: int,
    kind: str | None,
    model: str | None,
    on: Watching,
) -> CheckResult:
    """See `api.check`."""
    task, notes = _task(str(source), overrides, kind)
    splits = load_splits(task.data, task.kind, download=task.download)
    findings = []
    for number, (name, find) in enumerate(CHECKS.items()):
        on.progress(f"check: {name}", number, len(CHECKS))
        findings += find(splits, task.kind)
    on.progress("checks", len(CHECKS), len(CHECKS))
    everything = (*splits.train, *splits.validation, *splits.test)
    labels = {row.answer for row in everything if row.answer} if task.kind == "classify" else set()
    return CheckResult(
        train=len(splits.train),
        validation=len(splits.validation),
        test=len(splits.test),
        labels=tuple(sorted(labels)),
        notes=(*notes, *splits.notes),
        findings=tuple(sorted(findings, key=lambda found: _LEVELS.index(found.level))),
        shown=_show(task, splits, show, model) if show else (),
    )


def _task(source: str, overrides: Sequence[str], kind: str | None) -> tuple[Task, tuple[str, ...]]:
    """The task, and what was guessed of it."""
    if source.endswith((".yaml", ".yml")):
        if kind is not None:
            raise ConfigError(
                f"--kind {kind} is for data, and '{source}' is a task file with a kind of its own",
                fix="use --set kind=" + kind,
            )
        return load_task(source, overrides), ()
    task = parse_task({"kind": kind or "generate", "data": {"train": source}}, overrides)
    if kind is not None or any(override.startswith("kind=") for override in overrides):
        return task, ()
    rows = _rows(task)
    answers = len(set(rows.answers))
    # Labels repeat and free answers do not.
    guessed = "classify" if answers <= max(2, len(rows) // 4) else "generate"
    note = (
        f"taken as kind {guessed}, for its {len(rows):,} rows have {answers:,} different answers "
        "(--kind says otherwise)"
    )
    return task.model_copy(update={"kind": guessed}), (note,)


def _rows(task: Task) -> Rows:
    """All rows, their answers in a column that is usual for labels, else for free answers."""
    try:
        return load_rows(task.data.train, task.data, "classify", download=task.download)
    except DataError:
        return load_rows(task.data.train, task.data, "generate", download=task.download)


def _show(task: Task, splits: Splits, count: int, model: str | None) -> tuple[ShownRow, ...]:
    name, prompted = _model(task, model)
    source = resolve_source(name, download=task.download, trust_remote_code=task.trust_remote_code)
    tokenizer = load_tokenizer(source)
    if task.kind == "language-model":
        return _show_stream(task, splits, count, source, tokenizer)
    template: Any = (
        ChatTemplate(tokenizer, instruction=task.instruction, chat_template=task.chat_template)
        if prompted or describe(source).kind == "decoder"
        else TextTemplate(tokenizer)
    )
    return tuple(
        _shown(row.source, template.encode(row), tokenizer) for row in splits.train[:count]
    )


def _show_stream(
    task: Task, splits: Splits, count: int, source: ModelSource, tokenizer: Any
) -> tuple[ShownRow, ...]:
    """Documents end to end, in rows as the first tuned approach has them."""
    architecture = describe(source)
    tuned = (a for a in task.approaches if isinstance(a, config.Finetuned))
    given = next((a.max_length for a in tuned if a.max_length), None)
    length = given or max_length(architecture, read_pooling(source.folder))
    stream = STREAMS["pretrain" if architecture.kind == "decoder" else "masked"](tokenizer)
    rows = stream.rows(splits.train, length)[:count]
    return tuple(_shown(f"row {i}", item, tokenizer) for i, item in enumerate(rows, start=1))


def _shown(source: str, encoded: Encoded, tokenizer: Any) -> ShownRow:
    tokens = tuple(
        (tokenizer.decode([token]), reason.learned, reason.value)
        for token, reason in zip(encoded.tokens, encoded.reasons, strict=True)
    )
    return ShownRow(source, tokens)


def _model(task: Task, model: str | None) -> tuple[str, bool]:
    """Whose tokens to show: the one asked for, else the first that learns to write answers."""
    if model is not None:
        return model, False
    approaches = approaches_of(task)
    asking = config.Finetuned | config.Prompt | config.FewShot | config.Rag
    named = [approach for approach in approaches if isinstance(approach, asking)]
    for approach in named:
        source = resolve_source(
            approach.model, download=task.download, trust_remote_code=task.trust_remote_code
        )
        if describe(source).kind == "decoder":
            return approach.model, True
    return (named[0].model if named else "smollm2-135m"), False
