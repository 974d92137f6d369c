"""Options of approaches that look rows or passages up."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fitune.config.fields import MODEL, ApproachConfig, Positive, Switch
from fitune.config.prompting import Asking


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


class Embeddings(ApproachConfig):
    """Vectors of an encoder that stays as it is, and logistic regression on them."""

    use: Literal["embeddings"] = "embeddings"
    model: str = Field("minilm-l6", description="The encoder. " + MODEL)
    regularization: float | None = Field(
        None,
        gt=0,
        description="Inverse strength C, as scikit-learn's; default: chosen on the validation "
        "rows.",
    )


class Rag(Asking):
    """A decoder that is shown passages of `data.documents` with each question."""

    use: Literal["rag"] = "rag"
    retriever: str = Field(
        "hybrid",
        description="What finds passages: `bm25` compares words, `dense` vectors of an encoder, "
        "`hybrid` both; `qdrant` (an engine for many passages) or `package.module:Class`.",
    )
    retriever_options: dict[str, Any] = Field(
        {}, description="Of the retriever's class, e.g. `{stem: english}` for `bm25`."
    )
    encoder: str | None = Field(
        None, description="For retrievers that have one; default: `minilm-l6`. " + MODEL
    )
    passages: Positive | None = Field(
        None,
        description="How many are shown, the best first; default: 1 or 3, chosen on validation "
        "rows, 3 where they are fewer than 50.",
    )
    passage_tokens: Positive | None = Field(
        None,
        description="Most tokens of a passage when documents are cut; default: 200, or as many as "
        "the encoder reads.",
    )
    context_tokens: Positive | None = Field(
        None,
        description="Most tokens of all passages shown; default: three quarters of `max_length`.",
    )
    rerank: str | None = Field(
        None, description="A cross-encoder that puts the first 30 passages into another order."
    )
    cite: Switch = Field(
        False,
        description="For generate: ask for the numbers of the passages that an answer is from; "
        "they are kept beside the answer, and taken out of it.",
    )
    not_found: str | None = Field(
        None,
        min_length=1,
        description="For generate: what to answer where the passages do not tell.",
    )
