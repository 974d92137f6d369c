"""What to do next, in one sentence, from what a rung's errors are of.

Knows diagnoses and rungs' names and figures; knows nothing of how errors were sorted.

Failures of information call for retrieval; of behaviour for fine-tuning, where only the form is
wrong for examples first; of the data for clean labels; of capacity for learning, then for a larger
model or more rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from fitune.ladder.diagnose import Cause, Diagnosis
from fitune.ladder.rung import Rung

FORM = (
    "the reference stands in a longer answer",
    "the right words are written otherwise",
    "most words are right, in another form",
    "the answer is none of the labels",
    "the answer did not end by itself",
    "more than twice as long as any reference",
    "an empty answer",
)
"""Reasons that are of form alone, which showing examples may mend."""


def next_step(
    choice: Rung,
    rungs: Sequence[Rung],
    diagnoses: Sequence[Diagnosis],
    *,
    target: float | None,
    documents: bool,
) -> str:
    """The sentence, from "Next: " on.

    Args:
        choice: the recommended rung.
        rungs: all that were tried, and their diagnoses.
        target: of the task.
        documents: whether the task has documents to search.
    """
    diagnosis = next(found for found in diagnoses if found.rung == choice.name)
    looking_up = {found.rung for found in diagnoses if found.shown}
    if not diagnosis.errors:
        return f"Next: nothing: {choice.name} answers all {diagnosis.rows:,} test rows rightly."
    cause = diagnosis.causes[0]
    found = (
        f"{cause.count:,} of the {diagnosis.errors:,} errors of {choice.name} are of "
        f"{cause.name} ({_reason(cause)})"
    )
    if cause.name == "data":
        return (
            f"Next: nothing to train: what is left looks like label noise, as {found}; "
            "clean these labels first."
        )
    step = _step(cause, choice, {rung.use for rung in rungs}, looking_up, documents)
    if target is not None and choice.value >= target:
        return f"Next: nothing, as the target is reached; to go beyond it, {step}: {found}."
    return f"Next: {step}: {found}{_elsewhere(cause, choice)}."


def _reason(cause: Cause) -> str:
    why, count = cause.reasons[0]
    return why if count == cause.count else f"{why}: {count:,}"


def _step(
    cause: Cause, choice: Rung, tried: set[str], looking_up: set[str], documents: bool
) -> str:
    if cause.name == "information":
        if not documents:
            return "name the documents that hold the answers (data.documents) and add use: rag"
        if choice.name in looking_up:
            return "search better (more passages, retriever: hybrid, rerank)"
        if looking_up:
            return "search better, or show the passages to a stronger model"
        return "add retrieval (use: rag)"
    if cause.name == "behaviour":
        form = sum(count for why, count in cause.reasons if why in FORM)
        if 2 * form > cause.count and not tried & {"few-shot", "finetuned"}:
            return "show examples (use: few-shot), and fine-tune if they are not enough"
        if "finetuned" not in tried:
            return "fine-tune (use: finetuned)"
        if choice.use == "finetuned":
            return "give more rows of the kind that fails, or train longer"
        return "use a fine-tuned rung, or say in the instruction what is meant"
    if "finetuned" not in tried:
        return "fine-tune (use: finetuned)"
    return "try a larger model, or give more rows (--curve tells what they would bring)"


def _elsewhere(cause: Cause, choice: Rung) -> str:
    if cause.also_right is None or cause.also_right[0] == choice.name:
        return ""
    name, count = cause.also_right
    return f"; {name} answers {count:,} of them rightly"
