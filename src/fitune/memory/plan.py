"""What fits: ways of training against lengths of rows, and models against a budget.

Knows the catalogue, estimates and budgets; knows nothing of a running machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fitune.config import Finetuned
from fitune.memory.estimate import estimate_training
from fitune.memory.micro_batch import largest_batch
from fitune.memory.options import Training
from fitune.models.bundled import BundledModel, bundled_config, bundled_models
from fitune.models.pooling import Pooling

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Way:
    """A way of training, as a row of the matrix.

    Attributes:
        method: a name in `METHODS`.
        checkpointing: whether activations are computed again; with a number n, of every n-th
            layer.
    """

    method: str
    checkpointing: bool | int

    def __str__(self) -> str:
        if not self.checkpointing:
            return self.method
        every = "" if self.checkpointing is True else f" 1 in {self.checkpointing}"
        return f"{self.method}, checkpointing{every}"


WAYS = tuple(
    Way(method, checkpointing)
    for method in ("full", "lora", "qlora")
    for checkpointing in (False, True)
)
"""From what learns most to what needs least."""

LENGTHS = (512, 2048, 8192)
"""Tokens a row; those within the model's context are shown."""


@dataclass(frozen=True)
class Cell:
    """One way at one length.

    Attributes:
        rows: of the largest micro-batch that fits; 0 where not even one row does.
        peak_bytes: with so many rows, or with one where none fits.
    """

    way: Way
    seq: int
    rows: int
    peak_bytes: int


def plan_matrix(
    config: Any,
    training: Training,
    budget: int,
    *,
    parameters: int,
    ways: Sequence[Way] = WAYS,
    lengths: Sequence[int] = LENGTHS,
    pooling: Pooling | None = None,
    most: int = 256,
    progress: Progress = lambda done, total: None,
) -> list[Cell]:
    """Every way at every length, way by way.

    Of longer rows no more fit than of shorter ones, so each length is asked about as many rows as
    the one before it allowed, and of a model whose weights alone are too much about one.

    Args:
        training: what the ways and lengths leave open.
        lengths: from short to long.
        budget: bytes of live tensors (see `headroom.live_bytes`).
        most: rows beyond which nobody asks.
        parameters: of the model.
    """
    cells = []
    for way in ways:
        options = training.options.model_copy(
            update={"method": way.method, "checkpointing": way.checkpointing}
        )
        rows = most if least_bytes(options, parameters) <= budget else 1
        for seq in lengths:
            asked = replace(training, options=options, seq=seq)
            found = largest_batch(config, asked, budget, pooling=pooling, most=rows)
            rows = max(1, found.rows)
            cells.append(Cell(way, seq, found.rows, found.peak_bytes))
            progress(len(cells), len(ways) * len(lengths))
    return cells


def recommend(cells: Sequence[Cell]) -> Cell | None:
    """The way that learns most among those that fit rows of the greatest length that any fits.

    The order of `cells` says what learns most. None where nothing fits.
    """
    fitting = [cell for cell in cells if cell.rows]
    if not fitting:
        return None
    longest = max(cell.seq for cell in fitting)
    return next(cell for cell in fitting if cell.seq == longest)


def models_that_fit(
    training: Training, budget: int, *, kinds: Sequence[str] = ("encoder", "decoder")
) -> Iterator[tuple[BundledModel, int]]:
    """The catalogue's models whose step fits, largest first, with their peaks in bytes.

    An iterator, since each takes about a second. Models of the same shapes are listed once.

    Args:
        budget: bytes of live tensors.
    """
    from fitune.models.architecture import kind_of

    seen = set()
    for model in sorted(bundled_models(), key=lambda m: -m.parameters):
        if least_bytes(training.options, model.parameters) > budget:
            continue
        config = bundled_config(model)
        shapes = (model.parameters, model.config["model_type"])
        if shapes in seen or kind_of(config) not in kinds:
            continue
        seen.add(shapes)
        peak = estimate_training(config, training).peak_bytes
        if peak <= budget:
            yield model, peak


def least_bytes(options: Finetuned, parameters: int) -> int:
    """Bytes below which no step can be, before anything is traced: the weights alone."""
    if options.method == "qlora":
        return parameters // 2
    narrow = options.dtype == "pure-bf16" or (
        options.dtype == "bf16" and options.method in ("lora", "dora")
    )
    return parameters * (2 if narrow else 4)
