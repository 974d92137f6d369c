"""The task file as a whole, and which approaches it may name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fitune.config.classic import Hmm, Linear, Majority, NGram, Recurrent
from fitune.config.data import Data
from fitune.config.fields import ApproachConfig, Positive, Strict
from fitune.config.finetuned import Finetuned
from fitune.config.judge import Judge
from fitune.config.prompting import FewShot, Prompt
from fitune.config.retrieving import Embeddings, Knn, Rag


class Custom(ApproachConfig):
    """An approach of the user's own, `package.module:Class`, or one without a schema here."""

    use: str = Field(pattern=r"^[A-Za-z_][\w.-]*(:[A-Za-z_]\w*)?$")
    options: dict[str, Any] = Field({}, description="Handed to the class as they are.")


KNOWN: dict[str, type[ApproachConfig]] = {
    "majority": Majority,
    "linear": Linear,
    "ngram": NGram,
    "hmm": Hmm,
    "recurrent": Recurrent,
    "knn": Knn,
    "embeddings": Embeddings,
    "prompt": Prompt,
    "few-shot": FewShot,
    "rag": Rag,
    "finetuned": Finetuned,
}


def _tag(value: Any) -> str:
    use = value.get("use") if isinstance(value, dict) else getattr(value, "use", None)
    return use if isinstance(use, str) and use in KNOWN else "custom"


AnyApproach = Annotated[
    Annotated[Majority, Tag("majority")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[NGram, Tag("ngram")]
    | Annotated[Hmm, Tag("hmm")]
    | Annotated[Recurrent, Tag("recurrent")]
    | Annotated[Knn, Tag("knn")]
    | Annotated[Embeddings, Tag("embeddings")]
    | Annotated[Prompt, Tag("prompt")]
    | Annotated[FewShot, Tag("few-shot")]
    | Annotated[Rag, Tag("rag")]
    | Annotated[Finetuned, Tag("finetuned")]
    | Annotated[Custom, Tag("custom")],
    Discriminator(_tag),
]


class Task(Strict):
    """A task file: what is asked, of which rows, how it is judged, and which ways are tried."""

    name: str = Field(
        "task",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Of the run folders: `<output>/<name>-<n>`.",
    )
    kind: Literal["classify", "generate", "language-model"] = Field(
        description="Answers from a fixed set of labels, free text, or plain text without a "
        "question."
    )
    instruction: str | None = Field(
        None, description="Said to every model that reads instructions, before the text."
    )
    data: Data = Field(description="Where rows come from and how they are split.")
    metric: str | None = Field(
        None,
        description="Default: accuracy for classify, token_f1 for generate, neg_bits_per_byte for "
        "language-model.",
    )
    also: tuple[str, ...] = Field(
        (),
        description="Further metrics to tell beside the usual ones, such as "
        "`embedding_similarity` (or `embedding_similarity@MODEL`) for generate, or "
        "`package.module:function`.",
    )
    judge: Judge | None = Field(
        None, description="For generate: a language model that compares the rungs' answers."
    )
    target: float | None = Field(None, description="The ladder stops at the first rung above it.")
    approaches: tuple[AnyApproach, ...] = Field(
        (), description="Default: every approach that fits the kind, on the offline models."
    )
    max_answer_tokens: Positive | None = Field(
        None, description="For generate; default: from the training answers."
    )
    chat_template: str = Field(
        "auto",
        description="`auto` (the tokenizer's, else fitune's), `default` or a Jinja file.",
    )
    track: tuple[str, ...] = Field(
        (),
        description="Where records of fine-tuning go besides `metrics.jsonl`: `tensorboard`, "
        "`wandb` (offline), `mlflow`, `trackio` or `package.module:Class`.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything random but the split.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` is `cuda` where torch finds a device."
    )
    download: bool = Field(False, description="Allow Hub ids to be fetched from the network.")
    trust_remote_code: tuple[str, ...] = Field(
        (), description="Models, by name, whose own Python code may run."
    )
    output: str = Field("runs", description="The folder that holds run folders.")
