"""From a checked task file to the ladder's entries: every name resolved before anything loads.

Knows the tables of names and the approaches' constructors; knows nothing of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fitune import config
from fitune.approaches import APPROACHES
from fitune.approaches.base import Approach, Prediction, Progress, Score, Work
from fitune.config import ApproachConfig, Task
from fitune.data.rows import Rows
from fitune.errors import ConfigError, FituneError, ModelError
from fitune.evaluation.metrics import DEFAULT_METRIC, METRICS, Metric, custom_metric, find_metric
from fitune.evaluation.similarity import Embed, embedding_similarity
from fitune.hardware import Machine, this_machine
from fitune.ladder.chat_api import ChatApi
from fitune.ladder.climb import Entry
from fitune.models.architecture import describe
from fitune.models.pooling import read_pooling
from fitune.models.source import resolve_source
from fitune.names import import_object, lookup
from fitune.quantization.weights import require_bitsandbytes
from fitune.retrieval.encoder import Encoder, Vectors
from fitune.runs import Run, explain_damage
from fitune.training.callbacks import Callback
from fitune.training.methods import METHODS
from fitune.training.optim import EIGHT_BIT, OPTIMIZERS, require_device
from fitune.training.sinks import make_sinks

_PARTS_OF_APPROACH = ("fit", "predict", "cost", "options", "save", "load")

STANDARD: dict[str, tuple[ApproachConfig, ...]] = {
    "classify": (
        config.Majority(),
        config.Linear(),
        config.NGram(),
        config.Recurrent(),
        config.Knn(),
        config.Embeddings(),
        config.Prompt(),
        config.FewShot(),
        config.Finetuned(model="minilm-l6"),
        config.Finetuned(model="smollm2-135m"),
    ),
    "generate": (config.Prompt(), config.FewShot(), config.Finetuned(model="smollm2-135m")),
    "language-model": (config.Finetuned(model="smollm2-135m"),),
}
"""The ladder for a task file that lists no approaches."""


def approaches_of(task: Task) -> tuple[ApproachConfig, ...]:
    """Those that the task file lists; else the standard ones, with retrieval where it names
    documents."""
    if task.approaches or task.kind == "language-model":
        return task.approaches or STANDARD[task.kind]
    return (*STANDARD[task.kind], *([config.Rag()] if task.data.documents else []))


ENCODER = "minilm-l6"

BY_ENCODER: dict[str, tuple[Callable[[Embed, str], Metric], tuple[str, ...]]] = {
    "embedding_similarity": (embedding_similarity, ("generate",)),
}
"""Metrics that need an encoder, written `NAME` or `NAME@MODEL`: how to make them of a function that
embeds, and the kinds of task they fit."""


def resolve_metric(task: Task) -> Metric:
    """The task's metric.

    Raises:
        ConfigError: no such name, or not for this kind.
        ModelError: its encoder is not there.
    """
    return _metric(task.metric or DEFAULT_METRIC[task.kind], task)


def resolve_also(task: Task) -> tuple[Metric, ...]:
    """The further metrics that the task asks for.

    Raises: as `resolve_metric`.
    """
    return tuple(_metric(name, task) for name in dict.fromkeys(task.also))


def check_judge(task: Task) -> None:
    """Find out now that the judge cannot be asked, as far as that shows without asking.

    Raises:
        ConfigError: the kind of task has nothing to judge, or the key is not in the environment.
    """
    if task.judge is None:
        return
    if task.kind != "generate":
        raise ConfigError(
            f"judge compares written answers, and the task's kind is '{task.kind}'",
            fix="remove it, or set kind: generate",
        )
    ChatApi(task.judge.url, task.judge.model, task.judge.key_env)


def _metric(name: str, task: Task) -> Metric:
    base, _, model = name.partition("@")
    if base in BY_ENCODER and task.kind in BY_ENCODER[base][1]:
        make, _ = BY_ENCODER[base]
        return make(_embed(model or ENCODER, task), name)
    if ":" in name and name not in METRICS:
        return custom_metric(name, import_object(name, "metric"), (task.kind,))
    others = [other for other, (_, kinds) in BY_ENCODER.items() if task.kind in kinds]
    return find_metric(name, task.kind, others)


def _embed(model: str, task: Task) -> Embed:
    """Texts → vectors by the encoder of that name, which is found now and loaded for each call:
    kept, it would count as memory of every rung that follows.

    Raises:
        ModelError: there is no such model, or it does not say how it pools.
    """
    source = resolve_source(model, download=task.download, trust_remote_code=task.trust_remote_code)
    if read_pooling(source.folder) is None:
        raise ModelError(
            f"'{model}' cannot compare texts: it does not say how its token vectors become one",
            fix="use a sentence-transformers model, such as embedding_similarity@minilm-l6",
        )

    def embed(texts: Sequence[str]) -> Vectors:
        device = _device(task, this_machine(folder=".", load_torch=True))
        return Encoder(source, device=device).passages(texts)[0]

    return embed


def score_with(metric: Metric) -> Score:
    """The metric as approaches see it."""

    def score(predictions: list[Prediction], rows: Rows) -> float:
        return metric.function([p.text for p in predictions], rows.answers)

    return score


def ladder_entries(task: Task) -> list[Entry]:
    """The task's approaches, cheapest first.

    The order is that of `APPROACHES`; fine-tuned models stand by their number of parameters, a
    user's own approaches last, and equals as in the task file.

    Raises:
        ConfigError: an unknown or doubled name, an option that contradicts another, or an approach
            that is not for the kind of task.
        MissingExtraError: a package is not installed.
        ModelError: a model is not there.
    """
    make_sinks(task.track)
    resolve_also(task)
    check_judge(task)
    ranked: list[tuple[tuple[int, int], Entry]] = []
    approaches = approaches_of(task)
    for options, name in zip(approaches, _names(approaches), strict=True):
        use = _use(options)
        approach = lookup(use, APPROACHES, "approach")
        if task.kind == "language-model" and use in APPROACHES and use != "finetuned":
            raise ConfigError(
                f"approach '{use}' answers rows, and documents of kind language-model ask nothing",
                fix="use finetuned, or remove it",
            )
        model = getattr(options, "model", None)
        size = 0
        if isinstance(options, config.Finetuned):
            _check_packages_and_device(options, task)
        if model is not None:
            size = _size(model, task)
        rank = list(APPROACHES).index(use) if use in APPROACHES else len(APPROACHES)
        entry = Entry(
            name=name,
            use=use,
            model=model,
            method=getattr(options, "method", None),
            max_train_rows=options.max_train_rows,
            make=_maker(use, approach, options),
        )
        ranked.append(((rank, size), entry))
    return [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]


def _check_packages_and_device(options: config.Finetuned, task: Task) -> None:
    """Find out now, and not at this rung, that its method or optimizer cannot run here.

    Raises:
        ConfigError: no such method or optimizer.
        MissingExtraError: a package is not installed.
        ResourceError: the optimizer needs another device.
    """
    lookup(options.method or "full", METHODS, "method")
    lookup(options.optimizer, OPTIMIZERS, "optimizer")
    if options.method == "qlora":
        require_bitsandbytes("method qlora")
    if options.optimizer in EIGHT_BIT:
        require_bitsandbytes(f"optimizer {options.optimizer}")
        require_device(options.optimizer, _device(task, this_machine(folder=".", load_torch=True)))


def _device(task: Task, machine: Machine) -> str:
    """`cpu` or `cuda`.

    Raises:
        ConfigError: `device: cuda` on a machine without.
    """
    if task.device == "cuda" and not machine.gpus:
        raise ConfigError(
            "device is cuda, and torch sees no CUDA device here",
            fix="set device: auto, or install a torch build with CUDA",
        )
    return "cuda" if machine.gpus and task.device != "cpu" else "cpu"


def _use(options: ApproachConfig) -> str:
    use: str = options.use  # type: ignore[attr-defined]  # every member of the union has it
    return use


def _names(approaches: Sequence[ApproachConfig]) -> list[str]:
    """The given names, and for the others the approach's with the model's, numbered from 2 where
    taken."""
    given = [options.name for options in approaches if options.name]
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise ConfigError(f"two approaches are called '{twice}'", fix="give each its own name")
    names: list[str] = []
    for options in approaches:
        base = options.name or _default_name(options)
        candidates = itertools.chain([base], (f"{base}-{n}" for n in itertools.count(2)))
        free = (name for name in candidates if name not in {*given, *names})
        names.append(options.name or next(free))
    return names


def _default_name(options: ApproachConfig) -> str:
    base = _use(options).rpartition(":")[2]
    if isinstance(options, config.Rag):
        return f"{base}-{options.retriever.rpartition(':')[2]}"
    if not isinstance(options, config.Finetuned):
        return base
    model = Path(options.model)
    named = f"{base}-{model.stem if model.suffix == '.gguf' else model.name}"
    return f"{named}-{options.context}" if options.context else named


def _maker(use: str, approach: Any, options: ApproachConfig) -> Callable[[Work], Approach]:
    def make(work: Work) -> Approach:
        if use in APPROACHES:
            made: Approach = approach(options, work)
            return made
        try:
            made = approach(options, work)
            missing = sorted({*_PARTS_OF_APPROACH} - {*dir(made)})
        except FituneError:
            raise
        except Exception as error:
            raise ConfigError(
                f"approach '{use}' cannot be made ({type(error).__name__}: {error})",
                fix="mend its constructor, which is given its options and the work",
            ) from error
        if missing:
            raise ConfigError(
                f"approach '{use}' lacks {', '.join(missing)}",
                fix="write it as fitune.approaches.base.Approach says",
            )
        return made

    return make


def _size(model: str, task: Task) -> int:
    """Parameters of a model; this also finds out, early, that it is there and readable."""
    source = resolve_source(model, download=task.download, trust_remote_code=task.trust_remote_code)
    architecture = describe(source)
    if architecture.kind == "encoder-decoder":
        raise ModelError(
            f"'{model}' is an encoder-decoder ({architecture.model_type}), which no approach can "
            "apply yet",
            fix="use an encoder such as minilm-l6, or a decoder such as smollm2-135m",
        )
    return architecture.parameters


def make_work(
    task: Task,
    labels: tuple[str, ...],
    metric: Metric,
    *,
    folder: Path,
    progress: Progress,
    notice: Callable[[str], None],
    stop_requested: Callable[[], bool],
    callbacks: tuple[Callback, ...] = (),
) -> Work:
    """What an approach is given, with what this machine has.

    Raises:
        ConfigError: `device: cuda` on a machine without.
    """
    machine = this_machine(folder=".", load_torch=True)
    gpus = machine.gpus or ()
    device = _device(task, machine)
    native = gpus[0].native_bf16 if device == "cuda" else machine.native_bf16
    return Work(
        task=task,
        labels=labels,
        folder=folder,
        progress=progress,
        notice=notice,
        score=score_with(metric),
        device=device,
        dtype="bf16" if native else "fp32",
        memory_bytes=gpus[0].memory_free if device == "cuda" else machine.memory_available,
        stop_requested=stop_requested,
        callbacks=callbacks,
    )


def load_approach(run: Run, name: str, work: Work) -> Approach:
    """A rung's saved approach, ready to predict.

    Raises:
        RunError: its files are missing or damaged.
    """
    folder = run.rung(name)
    with explain_damage(folder / "rung.json"):
        use = run.read(f"rungs/{name}/rung.json")["use"]
    approach = lookup(use, APPROACHES, "approach")
    with explain_damage(folder / "model"):
        loaded: Approach = approach.load(folder / "model", work)
    return loaded
