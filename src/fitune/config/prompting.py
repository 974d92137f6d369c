"""Options of approaches that ask a decoder as it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fitune.config.fields import MODEL, ApproachConfig, Positive, Switch

Words = Annotated[str, Field(min_length=1)]


class Asking(ApproachConfig):
    """How a decoder that learns nothing is asked, and how its answer is read."""

    model: str = Field("smollm2-135m", description=MODEL)
    max_length: Positive | None = Field(None, description="Tokens of prompt and answer together.")
    instructions: tuple[Words, ...] = Field(
        (),
        description="Tried on validation rows beside the task's; the best is kept, the first of "
        "equals.",
    )
    show_labels: Switch | None = Field(
        None,
        description="For classify: whether the instruction lists the labels; default: true, but "
        "where only labels of the examples shown may be answered.",
    )
    label_words: dict[str, Words] | None = Field(
        None,
        description="For classify: what the model is shown and asked for in place of a label; "
        "default: the label, with spaces for underscores.",
    )
    normalize: Literal["sum", "mean", "pmi"] | None = Field(
        None,
        description="For classify: a label's log-likelihood as it is, per token, or less that "
        "without a question; default: chosen on validation rows with `calibrate`.",
    )
    calibrate: Literal["none", "contextual", "batch"] | None = Field(
        None,
        description="For classify: hold back labels that are likely whatever is asked, by "
        "questions without content or by the mean over training rows; default: chosen on "
        "validation rows, `none` where they are fewer than 50.",
    )
    stop: tuple[Words, ...] = Field(
        (), description="For generate: an answer ends before the first of these."
    )
    choices: tuple[Words, ...] = Field(
        (), description="For generate: the likeliest of these is the answer."
    )
    json_schema: str | dict[str, Any] | None = Field(
        None, description="For generate: a JSON Schema, or its file, that every answer keeps to."
    )


class Prompt(Asking):
    """A decoder with an instruction and no examples."""

    use: Literal["prompt"] = "prompt"


class FewShot(Asking):
    """A decoder with an instruction and examples taken from the training rows."""

    use: Literal["few-shot"] = "few-shot"
    examples: Positive = Field(8, description="How many are shown before each question.")
    select: Literal["balanced", "diverse", "nearest"] = Field(
        "balanced",
        description="The same for every question, balanced over labels or spread over all that "
        "rows say, or for each question the rows most similar to it.",
    )
    order: Literal["similar-last", "similar-first", "random", "label"] | None = Field(
        None, description="Of examples; default: `similar-last` for nearest, else `random`."
    )
    retriever: Literal["bm25", "dense", "hybrid"] | None = Field(
        None, description="For nearest: what finds similar rows; default: `hybrid`."
    )
    encoder: str | None = Field(
        None,
        description="For diverse, and for nearest by `dense` or `hybrid`: what turns rows into "
        "vectors; default: `minilm-l6`. " + MODEL,
    )
    candidates: Literal["all", "shown"] | None = Field(
        None,
        description="For nearest and classify: which labels may be answered, those of the examples "
        "shown (the default, and several times faster) or all.",
    )
