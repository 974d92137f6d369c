"""How a network learns to predict the next token: steps, validation, early stopping.

Knows modules, objectives and `training.step`; knows nothing of cells, of attention or of text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fitune.data.batches import Batch
from fitune.errors import TrainingError
from fitune.language_models import Floats, Ids
from fitune.runs import explain_damage, explain_os_errors, read_json, write_json
from fitune.training.objectives import Objective
from fitune.training.optim import parameter_groups, schedule_factor
from fitune.training.step import step

Progress = Callable[[int, int], None]
"""(tokens learned from, of how many)."""

TRAINED_TOKENS = 1_500_000
"""Where epochs are not given, a corpus is read until so many tokens were learned from, repeats
counted: minutes on two cores, whatever the corpus's size up to there."""

MOST_EPOCHS = 10.0
"""Where epochs are not given: a small corpus is known by heart after more."""

CHECKS = 5
"""Validation is asked at least so often in a training, and after each epoch."""

LOGITS = 1 << 24
"""Logits that exist at once while sequences are scored: 64 MiB."""


@dataclass(frozen=True)
class Training:
    """How a network trains.

    Attributes:
        epochs: over the training sequences, fractions allowed; None: `TRAINED_TOKENS`.
        learning_rate: AdamW's, at its peak; it rises over the first twentieth and falls linearly
            to zero.
        weight_decay: of matrices.
        batch_tokens: of one step, padding included.
        clip: the largest norm of all gradients together.
        patience: training stops after so many validations in a row that were not the best.
        dtype: ``"fp32"``, or ``"bf16"`` for bf16 matrix products beside fp32 weights.
        seconds: training ends by then, its learning rate at zero; None: no limit. With a limit the
            result depends on the machine's speed.
        seed: of first weights, order and dropout; the same seed, machine and threads give the same
            weights.
    """

    epochs: float | None = None
    learning_rate: float = 8e-3
    weight_decay: float = 0.01
    batch_tokens: int = 512
    clip: float = 1.0
    patience: int = 2
    dtype: str = "fp32"
    seconds: float | None = None
    seed: int = 0

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.dtype == "bf16" else None


@dataclass(frozen=True)
class Learned:
    """What a training did.

    Attributes:
        tokens: learned from, repeats and ends of sequences counted.
        seconds: that it took, validation included.
        validation_loss: of the kept weights, nats a token; None without validation sequences.
        ended: why: ``"epochs"``, ``"validation"`` or ``"time"``.
    """

    tokens: int
    seconds: float
    validation_loss: float | None
    ended: str


class Lesson(Objective, Protocol):
    """An objective that knows in which steps its rows are learned."""

    def steps(self, rows: Sequence[int]) -> Iterator[Batch]:
        """One batch for each optimizer step; to be learned in this order."""


def silent(done: int, total: int) -> None:
    """The default for progress: nobody is told."""


def learn(
    module: nn.Module,
    lesson: Lesson,
    lengths: np.ndarray,
    training: Training,
    *,
    span: int,
    validate: Callable[[], float] | None,
    progress: Progress = silent,
) -> Learned:
    """Train `module` in place; its weights end as the best that validation saw.

    Args:
        lengths: ``[rows]`` tokens of each row of `lesson`.
        span: tokens of a row that are in one step at most.
        validate: the loss on held-out sequences, nats a token; None: the last weights are kept.

    Raises:
        TrainingError: the loss or a gradient is no finite number.
    """
    tokens = int(lengths.sum())
    total = max(1, round(_epochs(training, tokens) * tokens))
    # Told apart from a step, since a row may be learned in several.
    every = min(tokens, math.ceil(total / CHECKS))
    groups = parameter_groups(
        dict(module.named_parameters()),
        head=(),
        learning_rate=training.learning_rate,
        head_learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)
    device = str(next(module.parameters()).device)
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    worse, done, checked, ended = 0, 0, 0, "epochs"
    started = time.perf_counter()
    progress(0, total)
    with torch.random.fork_rng(devices=[]):
        for number, batch in enumerate(_batches(lesson, lengths, training, span)):
            spent = 0.0
            if training.seconds is not None:
                spent = (time.perf_counter() - started) / training.seconds
            share = max((done + batch.learned / 2) / total, spent)  # amid the step
            factor = schedule_factor(round(share * total), total, warmup=0.05, schedule="linear")
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            module.train()
            result = step(
                module,
                lesson,
                optimizer,
                [batch.to(device)],
                clip=training.clip,
                autocast=training.autocast,
                seed=training.seed + number,
            )
            if not result.updated:
                raise TrainingError(
                    f"the loss is no finite number after {done:,} tokens at learning rate "
                    f"{training.learning_rate:g}",
                    fix="lower the learning rate",
                )
            done += batch.learned
            progress(min(done, total), total)
            late = training.seconds is not None and (
                time.perf_counter() - started >= training.seconds
            )
            finished = late or done >= total
            if validate is not None and (finished or done - checked >= every):
                checked = done
                module.eval()
                loss = validate()
                if best is None or loss < best[0]:
                    kept = {name: value.clone() for name, value in module.state_dict().items()}
                    best, worse = (loss, kept), 0
                else:
                    worse += 1
            if finished:
                ended = "time" if late and done < total else "epochs"
                break
            if worse >= training.patience:
                ended = "validation"
                break
    if best is not None:
        module.load_state_dict(best[1])
    module.eval()
    seconds = time.perf_counter() - started
    progress(total, total)
    return Learned(done, seconds, None if best is None else best[0], ended)


def _epochs(training: Training, tokens: int) -> float:
    if training.epochs is not None:
        return training.epochs
    return min(MOST_EPOCHS, max(1.0, TRAINED_TOKENS / max(1, tokens)))


def _batches(lesson: Lesson, lengths: np.ndarray, training: Training, span: int) -> Iterator[Batch]:
    """Epoch after epoch without end, each in an order of its own."""
    epoch = 0
    while True:
        random = np.random.default_rng([training.seed, epoch])
        for rows in alike(lengths, training.batch_tokens, span=span, random=random):
            yield from lesson.steps(rows)
        epoch += 1


def alike(
    lengths: np.ndarray,
    budget: int,
    *,
    span: int,
    random: np.random.Generator | None = None,
) -> list[list[int]]:
    """Rows in groups of about the same length, so that little is padded.

    Args:
        lengths: ``[rows]``.
        budget: tokens of a group, padding included, of which a row has `span` at most; a group has
            one row at least.
        random: shuffles rows, sorts them by length in pools of 32 groups only, and shuffles the
            groups; None: all are sorted, shortest first.

    Returns:
        Groups of row indices; every row is in exactly one.
    """
    cost = np.minimum(np.asarray(lengths), span)
    order = np.arange(len(cost)) if random is None else random.permutation(len(cost))
    typical = max(1.0, float(cost.mean())) if len(cost) else 1.0
    pool = len(cost) if random is None else max(1, round(32 * budget / typical))
    groups: list[list[int]] = []
    for start in range(0, len(order), max(1, pool)):
        part = order[start : start + pool]
        group: list[int] = []
        for row in part[np.argsort(np.asarray(lengths)[part], kind="stable")].tolist():
            if group and (len(group) + 1) * int(cost[row]) > budget:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
    if random is not None:
        groups = [groups[i] for i in random.permutation(len(groups))]
    return groups


def some(sequences: Sequence[Ids], tokens: int, seed: int) -> list[Ids]:
    """Sequences drawn at random until they have `tokens` together; all where they have fewer."""
    picked: list[Ids] = []
    for index in np.random.default_rng(seed).permutation(len(sequences)):
        if tokens <= 0:
            break
        picked.append(sequences[index])
        tokens -= len(sequences[index]) + 1
    return picked


def mean_loss(log_probabilities: Sequence[Floats]) -> float:
    """Nats a token, ends counted."""
    total = sum(float(each.sum()) for each in log_probabilities)
    return -total / max(1, sum(map(len, log_probabilities)))


def chosen_log_probs(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> Floats:
    """Natural logs of the probabilities of `targets`: ``[n]`` float64.

    Args:
        hidden: ``[n, hidden]``.
        targets: ``[n]`` int64.
    """
    rows = max(1, LOGITS // head.out_features)
    parts = [
        -functional.cross_entropy(
            head(hidden[at : at + rows]).float(), targets[at : at + rows], reduction="none"
        )
        for at in range(0, len(hidden), rows)
    ]
    return torch.cat(parts).cpu().numpy().astype(np.float64)


def distribution(logits: torch.Tensor) -> Floats:
    """Probabilities that sum to 1, float64, of ``[vocabulary + 1]`` logits."""
    probabilities: Floats = torch.softmax(logits.detach().double(), dim=-1).cpu().numpy()
    return probabilities


def count(module: nn.Module) -> int:
    """Values that are learned; a tied weight counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def save_network(folder: Path, module: nn.Module, record: dict[str, Any]) -> None:
    """Write `model.safetensors` and `model.json`; a tied weight is written once.

    Raises:
        ResourceError: disk full, no permission.
    """
    from safetensors.torch import save_model

    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_model(module, str(folder / "model.safetensors"))
    write_json(folder / "model.json", record)


class Networked(Protocol):
    """A model around a network."""

    @property
    def network(self) -> nn.Module: ...


Made = TypeVar("Made", bound=Networked)


def load_network(
    folder: Path, kind: Callable[[int, Any, Training], Made], options: Callable[..., Any]
) -> Made:
    """A model as `save_network` wrote it, with its weights in `network`.

    Args:
        kind: makes it of the vocabulary's size, its options and its training.
        options: of this kind of model, by name.

    Raises:
        RunError: missing, damaged, or of another shape.
    """
    record = read_json(folder / "model.json")
    with explain_damage(folder / "model.json"):
        training = Training(**record["training"])
        made = kind(int(record["vocabulary"]), options(**record["options"]), training)
    load_weights(folder / "model.safetensors", made.network)
    return made


def load_weights(path: Path, module: nn.Module) -> None:
    """Put the weights that `save_network` wrote into `module`, and leave it ready to answer.

    Raises:
        RunError: missing, damaged, or of another shape.
    """
    from safetensors.torch import load_model

    with explain_damage(path):
        try:
            load_model(module, str(path))
        except RuntimeError as error:  # torch's, about names and shapes
            raise ValueError(str(error).splitlines()[0]) from error
    module.eval()


def as_record(vocabulary: int, options: Any, training: Training) -> dict[str, Any]:
    """What a network is made from, as JSON."""
    return {
        "vocabulary": vocabulary,
        "options": asdict(options),
        "training": asdict(training),
    }
