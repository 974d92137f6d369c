"""Options of approaches that look rows or passages up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fitune.config.fields import MODEL, ApproachConfig, Positive


class Knn(ApproachConfig):
    """The labels of the most similar training rows, in a vote weighted by similarity."""

    use: Literal["knn"] = "knn"
    retriever: Literal["bm25", "dense", "hybrid"] = Field(
        "hybrid", description="Compares words, vectors of an encoder, or both."
    )
    model: str | None = Field(
        None, description="For `dense` and `hybrid`: the encoder; default: `minilm-l6`. " + MODEL
    )
    neighbours: Positive | None = Field(
        None, description="How many rows vote; default: chosen on the validation rows."
    )
