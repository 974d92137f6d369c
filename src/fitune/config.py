"""The shape of a task file.

Knows field names, types, limits and defaults; knows no other room: names such as a method's or a
metric's are plain strings here and are resolved by `api`, before anything loads. A field whose
default is None is chosen by fitune from the model and the data, and the chosen value is written
into the run folder.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class Strict(BaseModel):
    """Unknown fields are errors, and nothing changes after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Switch = Annotated[bool, Field(strict=True)]
Weight = Annotated[float, Field(gt=0.0)]

MODEL = "A packaged name, a folder, a GGUF file, or a Hub id (`ORG/NAME`, with `download: true`)."


class RowCaps(Strict):
    """The most rows of each split to use; rows beyond are left out by content hash, and counted."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class Data(Strict):
    """Where rows come from and how they are split."""

    train: str = Field(
        description="A file, a saved dataset folder, `hub:ORG/NAME`, or `sample:pydocs`."
    )
    validation: str | None = Field(None, description="As `train`; default: taken from train.")
    test: str | None = Field(None, description="As `train`; default: taken from train.")
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "dataset", "txt"] = Field(
        "auto", description="Of the files; `auto` goes by the name, then by the content."
    )
    shape: Literal[
        "auto",
        "columns",
        "alpaca",
        "sharegpt",
        "messages",
        "prompt-completion",
        "preference",
        "document",
        "sections",
        "lines",
    ] = Field(
        "auto",
        description="How a record holds its text; `auto` goes by the field names. For "
        "language-model: each file or record is a `document`, or is cut into `sections` (at blank "
        "lines) or `lines` that are documents of their own; `auto` cuts a text file into sections "
        "where test or validation documents are taken from it.",
    )
    input: str | None = Field(None, description="The column with the text, for shape `columns`.")
    output: str | None = Field(None, description="The column with the label or the answer.")
    encoding: str = Field("utf-8", description="Of text files, as Python names it.")
    validation_fraction: Fraction = Field(
        0.1, description="Of the training rows, when `validation` is not given."
    )
    test_fraction: Fraction = Field(0.2, description="Of all rows, when `test` is not given.")
    split_seed: int = Field(
        0, ge=0, lt=2**32, description="Another seed puts other rows into validation and test."
    )
    max_rows: RowCaps = Field(RowCaps(), description="The most rows of each split to use.")
    too_long: Literal["refuse", "truncate", "drop"] = Field(
        "refuse",
        description="What happens to rows over the token limit: an error, the end of their text "
        "cut off, or (training rows only; others are cut) left out. Always counted and reported.",
    )


class ApproachConfig(Strict):
    """What every rung of the ladder has."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="In the table and the run folder; default: from what it uses.",
    )
    max_train_rows: Positive | None = Field(
        None, description="Learn from this many training rows at most (shown in the table)."
    )


class Majority(ApproachConfig):
    """Always the most frequent answer: the score of knowing nothing."""

    use: Literal["majority"] = "majority"


class Linear(ApproachConfig):
    """TF-IDF of word and character n-grams, logistic regression."""

    use: Literal["linear"] = "linear"
    regularization: float = Field(10.0, gt=0, description="Inverse strength C, as scikit-learn's.")


class NGram(ApproachConfig):
    """N-gram models of words and characters for every label, and Bayes' rule."""

    use: Literal["ngram"] = "ngram"
    word_order: int = Field(
        2, gt=0, le=20, description="Words in the longest n-gram; every order up to it is a model."
    )
    character_order: int = Field(
        5, gt=0, le=20, description="Characters in the longest n-gram of another model."
    )
    smoothing: Literal["kneser-ney", "absolute"] = Field(
        "kneser-ney",
        description="Where the probability of n-grams never seen comes from: interpolated "
        "Kneser-Ney with three discounts an order, or back-off with one.",
    )


class Hmm(ApproachConfig):
    """A hidden Markov model for every label, and Bayes' rule."""

    use: Literal["hmm"] = "hmm"
    tokens: Literal["words", "characters", "subwords"] = Field(
        "words", description="What a state says."
    )
    states: Positive = Field(2, description="Hidden ones of each label's model.")
    iterations: Positive = Field(10, description="Of Baum-Welch, at the most.")
    smoothing: float = Field(
        100.0,
        gt=0,
        description="Tokens, spread as in the label's rows, that each state has as well.",
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="Default: the task's.")


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


class Prompt(ApproachConfig):
    """A decoder with an instruction and no examples."""

    use: Literal["prompt"] = "prompt"
    model: str = Field("smollm2-135m", description=MODEL)
    max_length: Positive | None = Field(None, description="Tokens of prompt and answer together.")


class FewShot(ApproachConfig):
    """A decoder with an instruction and examples taken from the training rows."""

    use: Literal["few-shot"] = "few-shot"
    model: str = Field("smollm2-135m", description=MODEL)
    examples: Positive = Field(8, description="How many are shown, balanced over the labels.")
    max_length: Positive | None = Field(None, description="Tokens of prompt and answer together.")


MAY_CHANGE = ("micro_batch_tokens", "checkpoint_steps")
"""How much of a batch is computed at once and how often it is saved: a run that goes on may have
these otherwise than it began."""


class Finetuned(ApproachConfig):
    """A model whose weights, or an adapter beside them, learn from the training rows."""

    use: Literal["finetuned"] = "finetuned"
    model: str = Field("minilm-l6", description=MODEL)
    method: str | None = Field(
        None,
        description="`full`, `freeze`, `head`, `bitfit` (biases), `lora`, `dora`, `qlora` (lora "
        "beside weights in four bits), `ia3`, `prompt-tuning`, `prefix-tuning` or "
        "`package.module:function`.",
    )
    objective: Literal["classify", "sft", "dpo", "pretrain", "masked"] | None = Field(
        None,
        description="What is minimised; default: `classify` for encoders, `sft` (each token of an "
        "answer) for decoders, and for kind language-model `masked` (hidden tokens) and `pretrain` "
        "(every token). `dpo` learns to prefer the chosen answer of a pair to the rejected one.",
    )
    dpo_beta: float | None = Field(
        None,
        gt=0,
        description="For `dpo`: how much it costs to leave the model as it was; default: 0.1.",
    )
    freeze_layers: Positive | None = Field(
        None, description="For `freeze`: how many of the lowest layers stay as they are."
    )
    rank: Positive = Field(16, description="For `lora`, `dora` and `qlora`.")
    alpha: float = Field(32.0, gt=0, description="For the same: the scale is alpha / rank.")
    lora_dropout: Fraction = Field(0.0, description="For the same: on what the adapter reads.")
    rslora: bool = Field(
        False,
        description="For the same: the scale is alpha / √rank, so that a higher rank learns no "
        "slower (Kalajdzievski, arXiv:2312.03732).",
    )
    lora_plus: float | None = Field(
        None,
        gt=0,
        description="For the same: how many times the learning rate of A that of B is, e.g. 16 "
        "(Hayou et al., arXiv:2402.12354).",
    )
    lora_init: Literal["zero", "pissa"] = Field(
        "zero",
        description="For `lora`: the adapter starts as nothing, or takes over the largest singular "
        "values of the weight it stands beside (Meng et al., arXiv:2404.02948).",
    )
    adapter: str | None = Field(
        None,
        description="For `lora`, `dora` and `qlora`: the folder of a PEFT adapter that training "
        "goes on from, with its rank, alpha and modules.",
    )
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="For the same: names of the modules that get an adapter."
    )
    virtual_tokens: Positive = Field(
        20,
        description="For `prompt-tuning` and `prefix-tuning`: how many tokens stand before a row.",
    )
    optimizer: str = Field(
        "adamw",
        description="`adamw`, `sgd`, `momentum`, `adafactor`, `lion`, `adamw-8bit`, "
        "`paged-adamw-8bit` (CUDA only) or `package.module:function`.",
    )
    learning_rate: float | None = Field(None, gt=0, description="The highest of the schedule.")
    head_learning_rate: float | None = Field(None, gt=0, description="For a new head.")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Each layer's learning rate is that of the layer above it times this; the "
        "embeddings count as the lowest layer (Howard and Ruder, arXiv:1801.06146, section 3.2).",
    )
    weight_decay: float = Field(0.01, ge=0, description="Not of biases and norms.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    warmup: Fraction = Field(0.06, description="Of all steps.")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    epochs: float | None = Field(None, gt=0, description="Passes over the training rows.")
    batch_size: Positive | None = Field(None, description="Rows per optimizer step.")
    micro_batch_tokens: Positive | None = Field(
        None, description="Most tokens, padding included, in one forward pass."
    )
    label_smoothing: Fraction | None = Field(
        None,
        description="For classify with a head; for `dpo`, the share of pairs taken to be the wrong "
        "way round (below 0.5).",
    )
    class_weights: Literal["balanced"] | dict[str, Weight] | None = Field(
        None,
        description="For classify with a head: how much a row of each label counts, as `{label: "
        "weight}` (a label left out weighs 1), or `balanced`: rarer labels more, as scikit-learn "
        "does.",
    )
    dropout: Fraction = Field(
        0.0,
        description="On hidden values while training. Without it, how a batch is cut into "
        "micro-batches changes the update by rounding only.",
    )
    neftune: float | None = Field(
        None,
        gt=0,
        description="Noise on the embeddings while training, of this strength alpha, e.g. 5 (Jain "
        "et al., arXiv:2310.05914). As with dropout, how a batch is cut then changes the numbers "
        "drawn.",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Validate and keep an average of the weights over the steps, in which the past "
        "weighs this much at each further step, e.g. 0.999; less in the first steps.",
    )
    dtype: Literal["auto", "fp32", "bf16", "pure-bf16"] = Field(
        "auto",
        description="Of matrix products and frozen weights; what trains stays in fp32. With "
        "`pure-bf16` it is bf16 as well, gradients and AdamW's states too, and an update is lost "
        "that is less than half of bf16's step, about 1/512 of the weight.",
    )
    checkpointing: Switch | Positive = Field(
        False,
        description="Keep only what enters each layer and compute the rest again in the backward "
        "pass: less memory, about a third more time, the same gradients. With a number n, so every "
        "n-th layer.",
    )
    packing: bool = Field(
        True,
        description="Rows of decoders are laid end to end, each reading only itself, instead of "
        "being padded to one length, where the model can. The same update up to rounding.",
    )
    fused: bool = Field(
        True,
        description="Norms, gated layers, adapters and the output head with its loss are computed "
        "by fitune's kernels, where they fit the model. The same update up to rounding.",
    )
    trunk_cache: bool = Field(
        True,
        description="Where only the head or the highest layers of a classifier train, what the "
        "layers below make of a row is computed once and kept. The same update up to rounding.",
    )
    max_length: Positive | None = Field(None, description="Tokens per row.")
    patience: Positive = Field(3, description="Evaluations without improvement before stopping.")
    evaluations_per_epoch: Positive = Field(1, description="On the validation rows.")
    checkpoint_steps: Positive | None = Field(
        None, description="Save the training state every so many steps; default: about a minute."
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="Default: the task's.")


class Custom(ApproachConfig):
    """An approach of the user's own, `package.module:Class`, or one without a schema here."""

    use: str = Field(pattern=r"^[A-Za-z_][\w.-]*(:[A-Za-z_]\w*)?$")
    options: dict[str, Any] = Field({}, description="Handed to the class as they are.")


KNOWN: dict[str, type[ApproachConfig]] = {
    "majority": Majority,
    "linear": Linear,
    "ngram": NGram,
    "hmm": Hmm,
    "knn": Knn,
    "prompt": Prompt,
    "few-shot": FewShot,
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
    | Annotated[Knn, Tag("knn")]
    | Annotated[Prompt, Tag("prompt")]
    | Annotated[FewShot, Tag("few-shot")]
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
