"""Options of the approach that trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fitune.config.fields import MODEL, ApproachConfig, Fraction, Positive, Switch, Weight

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
        None,
        description="Most tokens in one forward pass, padding included; what rows share counts for "
        "each of them.",
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
    shared_prefix: bool = Field(
        True,
        description="What all rows of a micro-batch begin with (an instruction, the template's own "
        "words) is computed once for all of them, where rows are laid end to end and nothing is "
        "left to chance (dropout, neftune). The same update up to rounding.",
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
    context: Literal["bm25", "dense", "hybrid"] | None = Field(
        None,
        description="Every row, in training and after, is shown passages of `data.documents`, "
        "found by words, by vectors of `minilm-l6`, or by both.",
    )
    passages: Positive | None = Field(
        None, description="With `context`: how many are shown, the best first; default: 3."
    )
    context_tokens: Positive | None = Field(
        None,
        description="With `context`: most tokens of all passages shown; default: three quarters of "
        "`max_length`.",
    )
    patience: Positive = Field(3, description="Evaluations without improvement before stopping.")
    evaluations_per_epoch: Positive = Field(1, description="On the validation rows.")
    checkpoint_steps: Positive | None = Field(
        None, description="Save the training state every so many steps; default: about a minute."
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="Default: the task's.")
