"""What `estimate` is asked: every option, checked, and turned into what memory rooms understand.

Knows names, limits and which options contradict each other; loads no model, estimates nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.memory.options import Attention, Inference, Training
from fitune.memory.sharding import Sharding
from fitune.models.architecture import kind_of, max_length_of
from fitune.models.pooling import Pooling
from fitune.targets import Target
from fitune.training.defaults import TRAINED_LENGTH
from fitune.training.methods import METHODS
from fitune.training.optim import OPTIMIZERS, require_device
from fitune.training.precision import LOW_RANK

Asked = Training | Inference

TRAINING_DTYPES = ("fp32", "bf16", "pure-bf16")
INFERENCE_DTYPES = ("fp32", "bf16", "fp16")
KV_DTYPES = ("int8", "int4")
LORA_INITS = ("zero", "pissa")
VIRTUAL = ("prompt-tuning", "prefix-tuning")
"""Methods with tokens that stand for no word."""

SHARDS: dict[str, dict[str, Any]] = {
    **{name: {"strategy": name} for name in ("ddp", "fsdp", "zero1", "zero2", "zero3")},
    **{
        f"deepspeed-{name}": {"strategy": name, "library": "deepspeed"}
        for name in ("zero1", "zero2", "zero3")
    },
}
"""How several devices divide one model; without a library's name, as torch does it."""

TOKENS_AT_ONCE = 4096
"""Of a micro-batch, where nothing is said: more bring a CPU no speed, only memory."""

ROWS_AT_ONCE = {"decoder": 8, "encoder-decoder": 8, "encoder": 32}
"""Rows of a micro-batch at the most, where nothing is said: as many as a step of `tune` has."""

CONTEXT = 2048
"""Tokens of a request, where nothing is said."""

OBJECTIVES_OF = {
    "encoder": ("classify", "masked"),
    "decoder": ("sft", "dpo", "pretrain"),
    "encoder-decoder": (),
}
"""What a model of each kind can be asked about; the usual one first."""

OF_TRAINING = (
    *("method", "objective", "rank", "target_modules", "freeze_layers", "optimizer", "batch"),
    "seq",
    *("segments", "shared_prefix", "micro_batches", "answer_tokens", "labels", "checkpointing"),
    *("devices", "shard", "lora_init", "virtual_tokens", "ema", "neftune", "offload"),
)
OF_INFERENCE = ("context", "prompt", "requests", "kv_dtype")
LIMITS = {
    **dict.fromkeys(("rank", "freeze_layers", "batch", "micro_batches", "labels"), 2**20),
    "virtual_tokens": 2**16,
    **dict.fromkeys(
        ("seq", "segments", "shared_prefix", "answer_tokens", "context", "prompt"), 2**24
    ),
    "requests": 2**20,
    "devices": 2**14,
}
"""Counts, and the most that anybody can mean."""


@dataclass(frozen=True)
class Question:
    """What to estimate. An option that is None is chosen as `tune` would.

    Attributes:
        model: a packaged name, a folder, a config.json, a GGUF or safetensors file, a parameter
            file, a name of the bundled catalogue, or a Hub id; None: which models of the catalogue
            fit.
        inference: ask about answering instead of training.
        method, rank, target_modules, freeze_layers, optimizer, checkpointing, lora_init,
            virtual_tokens, ema, neftune: as in a task file, which has more options; those change no
            byte.
        dtype: of training ``"fp32"``, ``"bf16"`` or ``"pure-bf16"``, of inference ``"fp32"``,
            ``"bf16"`` or ``"fp16"``.
        objective: as in a task file; with ``"dpo"`` each row is a pair of answers.
        batch: rows of a micro-batch.
        seq: tokens of a row, padding included.
        padded: whether rows are padded to one length, and some are shorter; else they are all of
            the same length, laid end to end where the model can read them so.
        segments: how many rows each `seq` tokens hold, of rows laid end to end; None: one.
        shared_prefix: tokens that rows laid end to end all begin with, an instruction say, and that
            are computed once; None: nothing.
        micro_batches: of an optimizer step, whose gradients add up.
        answer_tokens: learned tokens of a row, of models that write; None: all but the first.
        labels: of models that classify.
        attention: the kernel: ``"auto"``, ``"eager"`` or ``"sdpa"``.
        context, prompt, requests, kv_dtype: of inference, see `memory.options.Inference`.
        devices, shard, offload: how many devices train together, how they divide the model (see
            `SHARDS`), and whether the divided part lives on the host.
        budget: of memory, on each device: ``"24GiB"`` or bytes.
        device: a name of the device catalogue, ``"cpu"`` or ``"cuda"`` of this machine.
        price: of a device per hour, in any currency.
        exact: trace every layer instead of a few of each kind.
        measure: run the real step on this machine, too.
        dtypes: the table of `accelerate estimate-memory`, too, and what is true.
        explain: textbook formulas, too, and where they part from the trace.
        plot: a file, .svg or .html, for a picture of bytes over the step.
    """

    model: str | None = None
    inference: bool = False
    method: str | None = None
    objective: str | None = None
    rank: int | None = None
    target_modules: str | Sequence[str] | None = None
    freeze_layers: int | None = None
    optimizer: str | None = None
    dtype: str | None = None
    batch: int | None = None
    seq: int | None = None
    padded: bool = False
    segments: int | None = None
    shared_prefix: int | None = None
    micro_batches: int | None = None
    answer_tokens: int | None = None
    labels: int | None = None
    checkpointing: bool | int | None = None
    lora_init: str | None = None
    virtual_tokens: int | None = None
    ema: float | None = None
    neftune: float | None = None
    attention: str = "auto"
    context: int | None = None
    prompt: int | None = None
    requests: int | None = None
    kv_dtype: str | None = None
    devices: int | None = None
    shard: str | None = None
    offload: bool = False
    budget: str | int | None = None
    device: str | None = None
    price: float | None = None
    exact: bool = False
    measure: bool = False
    dtypes: bool = False
    explain: bool = False
    plot: str | Path | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_names(self)
        _check_contradictions(self)

    @property
    def wants_plan(self) -> bool:
        """A budget to be filled, and nothing said that leaves no choice of how."""
        asked = self.budget is not None or self.device is not None
        pinned = (self.method, self.batch, self.devices, self.shard, self.freeze_layers)
        return (
            asked
            and not (self.inference or self.measure or self.offload)
            and all(option is None for option in pinned)
        )


def _check_numbers(question: Question) -> None:
    for name, most in LIMITS.items():
        value = getattr(question, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(
                f"{spelt(name)} is {value!r}", fix=f"give a whole number from 1 to {most:,}"
            )
    every = question.checkpointing
    if every is not None and not (isinstance(every, int) and (every is False or every >= 1)):
        raise ConfigError(
            f"{spelt('checkpointing')} is {every!r}",
            fix="give true, false, or n for every n-th layer, a whole number from 1",
        )
    for name, below, meant in (
        ("ema", 1.0, "how much the past weighs at each step, above 0 and below 1, e.g. 0.999"),
        ("neftune", float("inf"), "the noise's strength, above 0, e.g. 5"),
    ):
        value = getattr(question, name)
        if value is not None and not (isinstance(value, int | float) and 0 < value < below):
            raise ConfigError(f"{spelt(name)} is {value!r:.40}", fix=f"give {meant}")
    if question.price is not None and not 0 <= question.price < 1e9:
        raise ConfigError(
            f"{spelt('price')} is {question.price}", fix="give what an hour costs, 0 or more"
        )
    if question.plot is not None and Path(question.plot).suffix.lower() not in (".svg", ".html"):
        raise ConfigError(
            f"{spelt('plot')} is '{question.plot}', neither .svg nor .html",
            fix="name a file with one of these endings",
        )


def _check_names(question: Question) -> None:
    dtypes = INFERENCE_DTYPES if question.inference else TRAINING_DTYPES
    for name, known in (
        ("method", tuple(METHODS)),
        ("objective", tuple(name for names in OBJECTIVES_OF.values() for name in names)),
        ("optimizer", tuple(OPTIMIZERS)),
        ("dtype", dtypes),
        ("attention", get_args(Attention)),
        ("kv_dtype", KV_DTYPES),
        ("lora_init", LORA_INITS),
        ("shard", tuple(SHARDS)),
    ):
        value = getattr(question, name)
        if value is not None and value not in known:
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"{spelt(name)} is '{value!s:.40}'", fix=f"{hint}use one of {', '.join(known)}"
            )


def _check_contradictions(question: Question) -> None:
    other = OF_TRAINING if question.inference else OF_INFERENCE
    wrong = next((name for name in other if getattr(question, name) not in (None, False)), None)
    if wrong and question.inference:
        raise ConfigError(
            f"{spelt(wrong)} is for training, and {spelt('inference')} asks about answering",
            fix=f"leave out {spelt(wrong)} or {spelt('inference')}",
        )
    if wrong:
        raise ConfigError(
            f"{spelt(wrong)} is for answering, and this asks about training",
            fix=f"add {spelt('inference')}, or leave out {spelt(wrong)}",
        )
    method = question.method
    for name in ("rank", "target_modules"):
        if getattr(question, name) is not None and method is not None and method not in LOW_RANK:
            raise ConfigError(
                f"{spelt(name)} is for adapters, and method '{method}' has none",
                fix=f"use method {', '.join(sorted(LOW_RANK))}, or leave out {spelt(name)}",
            )
    for name, methods in (("lora_init", ("lora",)), ("virtual_tokens", VIRTUAL)):
        if getattr(question, name) is not None and method not in methods:
            raise ConfigError(
                f"{spelt(name)} is {getattr(question, name)}, but the method is "
                f"{method or 'chosen by fitune'}",
                fix=f"use {spelt('method')} {' or '.join(methods)}, or leave out {spelt(name)}",
            )
    if question.freeze_layers is not None and method != "freeze":
        raise ConfigError(
            f"{spelt('freeze_layers')} is {question.freeze_layers}, but the method is "
            f"{method or 'chosen by fitune'}",
            fix=f"use {spelt('method')} freeze, or leave out {spelt('freeze_layers')}",
        )
    if question.measure and question.device not in (None, "cpu", "cuda"):
        raise ConfigError(
            f"{spelt('measure')} runs on this machine, and {spelt('device')} names "
            f"'{question.device}'",
            fix="leave out one of the two",
        )
    if question.measure and (question.devices or question.offload or question.shard):
        raise ConfigError(
            f"{spelt('measure')} runs on one device, and this is divided among several",
            fix=f"leave out {spelt('measure')}, or {spelt('devices')}, {spelt('shard')} and "
            f"{spelt('offload')}",
        )
    if question.model is None:
        only = ("inference", "measure", "dtypes", "explain", "plot", "exact", "devices", "shard")
        wrong = next((name for name in only if getattr(question, name) not in (None, False)), None)
        if wrong:
            raise ConfigError(
                f"{spelt(wrong)} is about one model, and no model is named",
                fix=f"name a model, or leave out {spelt(wrong)}",
            )


def spelt(name: str) -> str:
    """An option as the command line spells it."""
    return "--" + name.replace("_", "-")


def asked_training(
    question: Question, target: Target, config: Any | None, pooling: Pooling | None
) -> Training:
    """The way of training that is meant.

    Args:
        config: of the model; None where only shapes are known, then `seq` says nothing.

    Raises:
        ConfigError: an option that does not apply to such a model.
        ResourceError: an optimizer that cannot run on the target.
    """
    kind = "decoder" if config is None else kind_of(config)
    method = question.method or ("lora" if kind == "decoder" and config is not None else "full")
    optimizer = question.optimizer or "adamw"
    require_device(optimizer, target.kernels)
    seq = question.seq or 1
    if config is not None:
        seq = _tokens(question, config, pooling, kind)
        _check_kind(question, kind, seq)
    options = Finetuned(
        method=method,
        objective=cast(Any, question.objective or _usual_objective(kind, config)),
        freeze_layers=question.freeze_layers,
        rank=question.rank or 16,
        target_modules=_modules(question.target_modules),
        optimizer=optimizer,
        dtype=cast(Any, question.dtype or ("bf16" if target.bf16 else "fp32")),
        checkpointing=question.checkpointing or False,
        lora_init=cast(Any, question.lora_init or "zero"),
        virtual_tokens=question.virtual_tokens or Finetuned().virtual_tokens,
        ema=question.ema,
        neftune=question.neftune,
        fused=question.devices in (None, 1),  # joined weights are not divided among devices
        label_smoothing=0.1 if kind == "encoder" else 0.0,
    )
    return Training(
        options,
        batch=question.batch or max(1, min(ROWS_AT_ONCE[kind], TOKENS_AT_ONCE // seq)),
        seq=seq,
        micro_batches=question.micro_batches or 1,
        packed=not question.padded,
        segments=question.segments or 1,
        shared_prefix=question.shared_prefix or 0,
        padded=question.padded,
        answer_tokens=question.answer_tokens,
        labels=question.labels or 2,
        attention=cast(Attention, question.attention),
        device=target.kernels,
    )


def _usual_objective(kind: str, config: Any | None) -> str | None:
    return None if config is None else next(iter(OBJECTIVES_OF[kind]), None)


def _tokens(question: Question, config: Any, pooling: Pooling | None, kind: str) -> int:
    most = max_length_of(config)
    if question.seq is None:
        if pooling is not None and pooling.max_length:
            return min(pooling.max_length, most)
        return min(512 if kind == "encoder" else TRAINED_LENGTH, most)
    if question.seq > most:
        raise ConfigError(
            f"{spelt('seq')} is {question.seq:,}, more than the {most:,} tokens that the model was "
            "made for",
            fix=f"give at most {most}",
        )
    return question.seq


def _check_kind(question: Question, kind: str, seq: int) -> None:
    if question.labels is not None and kind != "encoder":
        raise ConfigError(
            f"{spelt('labels')} is for models that classify, and this one writes",
            fix=f"leave out {spelt('labels')}",
        )
    for name in ("segments", "shared_prefix"):
        _check_packed(question, name, kind)
    _check_segments(question, seq)
    fitting = OBJECTIVES_OF[kind]
    if question.objective is not None and question.objective not in fitting:
        raise ConfigError(
            f"{spelt('objective')} is '{question.objective}', and this model is "
            f"{'a' if kind == 'decoder' else 'an'} {kind}",
            fix=f"use {', '.join(fitting)}" if fitting else f"leave out {spelt('objective')}",
        )
    if question.answer_tokens is None:
        return
    if kind == "encoder":
        raise ConfigError(
            f"{spelt('answer_tokens')} is for models that write, and this one classifies",
            fix=f"leave out {spelt('answer_tokens')}",
        )
    if kind == "decoder" and question.answer_tokens >= seq:
        raise ConfigError(
            f"{spelt('answer_tokens')} is {question.answer_tokens:,}, and a row has {seq:,} tokens",
            fix=f"give at most {seq - 1:,}: the first token is never learned",
        )


def _check_packed(question: Question, name: str, kind: str) -> None:
    if getattr(question, name) is None or (kind == "decoder" and not question.padded):
        return
    raise ConfigError(
        f"{spelt(name)} is for rows laid end to end, and these are padded: "
        + ("so it was asked" if question.padded else "only decoders read rows so"),
        fix=f"leave out {spelt(name)}" + (" or --padded" if question.padded else ""),
    )


def _check_segments(question: Question, seq: int) -> None:
    segments, shared = question.segments or 1, question.shared_prefix or 0
    if question.segments and 2 * segments > seq:
        raise ConfigError(
            f"{spelt('segments')} is {segments:,}, and {seq:,} tokens hold at most "
            f"{seq // 2:,} rows of two",
            fix=f"give at most {seq // 2:,}, or a larger {spelt('seq')}",
        )
    own = seq // segments - shared
    if shared and own <= (question.answer_tokens or 1):
        raise ConfigError(
            f"{spelt('shared_prefix')} is {shared:,} of a row's {seq // segments:,} tokens, and "
            f"the row needs {1 + (question.answer_tokens or 1):,} of its own: its answer, and one "
            "before it",
            fix=f"give less, or a larger {spelt('seq')}",
        )


def _modules(given: str | Sequence[str] | None) -> str | tuple[str, ...]:
    if given is None:
        return "all-linear"
    names = [given] if isinstance(given, str) else list(given)
    parts = [part.strip() for name in names for part in name.split(",") if part.strip()]
    return "all-linear" if parts == ["all-linear"] else tuple(parts)


def asked_inference(question: Question, target: Target, config: Any | None) -> Inference:
    """The way of answering that is meant."""
    most = CONTEXT if config is None else max_length_of(config)
    return Inference(
        requests=question.requests or 1,
        context=question.context or min(CONTEXT, most),
        prompt=question.prompt,
        padded=question.padded,
        dtype=question.dtype or ("bf16" if target.bf16 else _narrow(target)),
        kv_dtype=question.kv_dtype,
        attention=cast(Attention, question.attention),
        device=target.kernels,
    )


def _narrow(target: Target) -> Literal["fp16", "fp32"]:
    return "fp16" if target.kernels == "cuda" else "fp32"


def asked_sharding(question: Question) -> Sharding | None:
    """How the model is divided; None where it is not.

    Raises:
        ConfigError: see `Sharding`.
    """
    if question.devices is None and question.shard is None and not question.offload:
        return None
    return Sharding(
        question.devices or 1, offload=question.offload, **SHARDS[question.shard or "fsdp"]
    )


def echo_of(asked: Asked, question: Question, sharding: Sharding | None) -> dict[str, Any]:
    """Every option with the value that it was given or that was chosen."""
    if isinstance(asked, Inference):
        return {**asdict(asked), "exact": question.exact}
    options = asked.options
    chosen = (
        *("method", "objective", "rank", "target_modules", "freeze_layers", "optimizer", "dtype"),
        *("checkpointing", "lora_init", "virtual_tokens", "ema", "neftune"),
    )
    library = "" if sharding is None or sharding.library == "torch" else f"{sharding.library}-"
    return {
        **{name: getattr(options, name) for name in chosen},
        **{name: value for name, value in vars(asked).items() if name != "options"},
        "devices": sharding.devices if sharding else 1,
        "shard": f"{library}{sharding.strategy}" if sharding else None,
        "offload": bool(sharding and sharding.offload),
        "exact": question.exact,
    }
