"""Writes report.html into a run folder.

Knows the template and what it is given; knows nothing of training or models. The page is one file:
no script, no font, no picture from elsewhere, and a content security policy that forbids them, so
that text from the data cannot do anything either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitune.errors import ResourceError
from fitune.evaluation.calibration import calibration
from fitune.evaluation.significance import LEVEL
from fitune.ladder import figures
from fitune.ladder.diagnose import CAUSES
from fitune.report.confusion import confusion
from fitune.report.examples import judge, side_by_side, worst_mistakes
from fitune.report.gather import RunFolder, RungFolder, gather
from fitune.report.pictures import quality_against_cost, quality_against_rows
from fitune.report.plots import dots, learning_curves
from fitune.report.reliability import reliability_plot

TEXT_LIMIT = 600
"""Characters of one text that are shown."""


def write_report(run: Path) -> Path:
    """Build `report.html` from the files of a run folder, finished or interrupted.

    Returns its path; an older report is replaced only once the new one is whole.

    Raises:
        RunError: `run` is not a run folder, or one of its files is damaged.
        ResourceError: the file cannot be written.
    """
    run = Path(run)
    page = render(gather(run), title=run.name)
    path, unfinished = run / "report.html", run / ".report.html.part"
    try:
        # half a surrogate pair, which JSON can carry and UTF-8 cannot, becomes a question mark
        unfinished.write_bytes(page.encode("utf-8", "replace"))
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ResourceError(
            f"{path} cannot be written: {error.strerror}",
            fix="make room on the disk, or make the folder writable",
        ) from error
    return path


def render(run: RunFolder, *, title: str) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fitune", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=figures.duration,
        size=figures.size,
        number=figures.number,
        score=figures.score,
        difference=figures.difference,
        p_value=figures.p_value,
        amount=figures.amount,
        clip=clip,
        tied=tied,
    )
    answered = [rung for rung in run.rungs if rung.answers]
    judged = {rung.name: judge(run, rung) for rung in answered}
    focus = run.focus
    classify = run.task.get("kind") == "classify"
    names = list(judged)
    return environment.get_template("report.html").render(
        title=title,
        run=run,
        metric=run.metric,
        classify=classify,
        level=LEVEL,
        notes=[*(run.data.get("notes") or ())],
        dots=dots(run.finished, run.task.get("target")),
        costs=run.costs,
        cost_picture=quality_against_cost(run.finished, run.costs, run.choice),
        rows_picture=quality_against_rows(run.curve) if run.curve else None,
        meanings=CAUSES,
        reliability=reliability(run, focus) if focus and classify else None,
        curves=[
            (rung.name, panels)
            for rung in run.rungs
            if (panels := learning_curves(rung, run.metric))
        ],
        focus=focus,
        confusion=confusion(
            [row.answer for row in run.rows], [answer.text for answer in focus.answers]
        )
        if focus and classify
        else None,
        mistakes=worst_mistakes(run, judged[focus.name]) if focus else [],
        examples=side_by_side(run, list(judged.values()), names.index(focus.name)) if focus else [],
        further=sorted({name for rung in run.finished for name in rung.metrics}),
        settings=[
            ("Task", flat(run.task)),
            ("Environment", flat(run.environment)),
            *((f"Options of {rung.name}", flat(rung.options)) for rung in run.rungs),
        ],
    )


def reliability(run: RunFolder, rung: RungFolder) -> str | None:
    """The picture of how far a rung's confidence is to be believed, as SVG; None where it gives no
    probabilities."""
    if not all(len(answer.scores) == len(run.labels) for answer in rung.answers):
        return None
    references = [row.answer for row in run.rows]
    said = [answer.text for answer in rung.answers]
    known = {*run.labels}
    if not known or not {*said, *references} <= known:
        return None
    scores = [answer.scores for answer in rung.answers]
    return reliability_plot(calibration(scores, said, references, run.labels))


def clip(text: str, limit: int = TEXT_LIMIT) -> str:
    """Text fit to be shown: control characters as their symbols, and the end of a long one cut
    off, saying how much."""
    shown = "".join(
        chr(0x2400 + ord(c)) if c < " " and c not in "\n\t" else c for c in text[:limit]
    )
    cut = len(text) - limit
    return f"{shown} … ({cut:,} more characters)" if cut > 0 else shown


def tied(sentence: str) -> str:
    """A figure and its unit, or "p <" and its value, are not parted at the end of a line."""
    return re.sub(
        r"(?<=\d) (?=[a-zA-Z%]{1,3}\b|%)|(?<=\bp) (?=[<=])|(?<=[<=]) (?=\d)", "\u00a0", sentence
    )


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs, in order."""
    if isinstance(value, Mapping) and value:
        return [
            pair
            for key, inner in value.items()
            for pair in flat(inner, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return [pair for i, item in enumerate(value) for pair in flat(item, f"{name}[{i}]")]
    if not name:
        return []
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
