"""What the frozen part of a classifier makes of each row, computed once and kept for one training.

Where only the head or the highest layers train and nothing random happens below them (no dropout,
no noise), the layers below give a row the same values in every epoch and every evaluation. So they
are computed before the first step, and the model goes on from them. `boundary` finds the place and
`kept_values` has them; this module knows rows, and nothing of families.

The same up to rounding as without: a row meets other padding here than in its batch. Bit for bit
the same after a stop or a kill, since a value is a function of the model and the rows alone: rows
are computed in groups cut from all of them in order of length, whatever batches, micro-batches and
the order of steps are, and a training that goes on computes them again. (Unless the disk has no
room for them before and has afterwards, or the other way round: then the rest differs by rounding.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fitune.config import Finetuned
from fitune.data.batches import Batch, label_batch, micro_batches
from fitune.data.template import Encoded
from fitune.errors import Interrupted
from fitune.models.classifier import Classifier, NativeClassifier, PooledClassifier
from fitune.sizes import MIB
from fitune.training.boundary import Boundary, find_boundary, replaced
from fitune.training.kept_values import Kept, Part, keep, key

GROUP_TOKENS = 1024
"""Of one group, padding included: few enough to need less memory than a step does. It must not
depend on what may differ between a training and its continuation, as free memory does: rows would
be computed beside others."""

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Surroundings:
    """What keeping values has to do with besides the model.

    Attributes:
        pad: the id of padding tokens.
        device: `cpu` or `cuda`.
        autocast: the dtype of matrix products; None for the weights' own.
        room: bytes of main memory that values may take; more of them go into a file.
        folder: for that file.
        progress, notice, stop_requested: as an approach's work has them.
    """

    pad: int
    device: str
    autocast: torch.dtype | None
    room: int
    folder: Path
    progress: Callable[[str, int, int], None]
    notice: Callable[[str], None]
    stop_requested: Callable[[], bool]


@contextmanager
def trunk_kept(
    model: nn.Module, items: Iterable[Encoded], options: Finetuned, around: Surroundings
) -> Iterator[None]:
    """Inside the block, frozen layers of `model` are not computed again for these rows.

    Where that cannot be, the model is left as it is: it is no classifier, its lowest layer or
    something else below trains, dropout or noise is on, no row is met twice, or a trial with real
    rows shows that the model is none that can be entered in the middle.

    Args:
        model: with its method applied, and computed as it will be in training.
        items: every row that will be met, those of validation too.

    Raises:
        Interrupted: `stop_requested` answered True.
    """
    if not (_met_again(options) and isinstance(model, PooledClassifier | NativeClassifier)):
        yield
        return
    rows = list({key(item.tokens): item for item in items}.values())
    was_training = model.training
    lower = around.autocast is not None
    with torch.autocast(around.device, dtype=around.autocast, enabled=lower):
        boundary = _tried_boundary(model, rows, around)
        model.eval()
        kept = None if boundary is None else _all_kept(boundary, rows, around)
    model.train(was_training)
    if boundary is None or kept is None:
        yield
        return
    try:
        with replaced(model, "forward", _starting_at(boundary, kept, model.forward)):
            yield
    finally:
        kept.close()


def _met_again(options: Finetuned) -> bool:
    """Whether rows are met more than once, and are the same then."""
    random = options.dropout or options.lora_dropout or options.neftune
    return options.trunk_cache and not random and (options.epochs or 0) > 1


def _starting_at(boundary: Boundary, kept: Kept, plain: Forward) -> Forward:
    """A classifier's forward pass, which goes on from the boundary where all rows are known."""

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        values = kept.find(input_ids, attention_mask)
        if values is None or (boundary.per_token and values.shape[1] != input_ids.shape[1]):
            return plain(input_ids, attention_mask)
        with boundary.starting_at(values):
            return plain(input_ids, attention_mask)

    return forward


def _tried_boundary(
    model: Classifier, rows: list[Encoded], around: Surroundings
) -> Boundary | None:
    """A boundary, if going on from it gives some rows the logits that they have without.

    Each of them is computed alone and then compared beside the others, where all but the longest
    are padded: values that depend on a row's neighbours show, and so does all that is random.
    """
    by_length = sorted(rows, key=len)
    some = [by_length[0], by_length[len(rows) // 2], by_length[-1]]
    batch = _batch(some, around)
    model.eval()
    boundary = find_boundary(model, batch.input_ids, batch.attention_mask)
    if boundary is None:
        return None
    model.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expected = model(batch.input_ids, batch.attention_mask)
        try:
            parts = _computed(boundary, some, [[i] for i in range(len(some))], around)
            alone = keep(parts, _vectors(boundary, some), room=sys.maxsize, folder=around.folder)
            forward = _starting_at(boundary, alone, model.forward)
            found = forward(batch.input_ids, batch.attention_mask)
        except Exception:  # out of any family's code, which may miss what it needs in any way
            return None
    exact = around.autocast is None and alone.vectors.dtype == torch.float32
    tolerance = 1e-4 if exact else 3e-2
    scale = expected.abs().max().clamp(min=1e-12)
    # False where a value is no number, too.
    return boundary if bool((found - expected).abs().max() <= tolerance * scale) else None


def _all_kept(boundary: Boundary, rows: list[Encoded], around: Surroundings) -> Kept | None:
    """Every row's values, and a word about them; None where there is no room."""
    groups = micro_batches(range(len(rows)), [len(row) for row in rows], GROUP_TOKENS)

    def watched() -> Iterator[Part]:
        done = 0
        for part in _computed(boundary, rows, groups, around):
            if around.stop_requested():
                raise Interrupted("")
            yield part
            done += len(part.rows)
            around.progress("frozen layers", done, len(rows))

    try:
        kept = keep(watched(), _vectors(boundary, rows), room=around.room, folder=around.folder)
    except OSError as error:
        around.notice(
            f"what frozen layers make of {len(rows):,} rows finds no room in '{around.folder}' "
            f"({error.strerror}), so they are computed in every epoch"
        )
        return None
    around.notice(
        f"frozen layers are computed once for {len(rows):,} rows: {kept.bytes / MIB:,.1f} MiB are "
        f"kept in {'memory' if kept.file is None else f'a file in {str(around.folder)!r}'}"
    )
    return kept


def _computed(
    boundary: Boundary,
    rows: Sequence[Encoded],
    groups: Sequence[Sequence[int]],
    around: Surroundings,
) -> Iterator[Part]:
    """Values of each group of rows, computed side by side."""
    for group in groups:
        some = [rows[i] for i in group]
        batch = _batch(some, around)
        with torch.no_grad():
            values = boundary.reached(batch.input_ids, batch.attention_mask)
        own = values[batch.attention_mask.bool()] if boundary.per_token else values[:, 0]
        counts = [len(row) if boundary.per_token else 1 for row in some]
        yield Part([row.tokens for row in some], counts, own)


def _vectors(boundary: Boundary, rows: Sequence[Encoded]) -> int:
    return sum(map(len, rows)) if boundary.per_token else len(rows)


def _batch(rows: Sequence[Encoded], around: Surroundings) -> Batch:
    unlabelled = [0] * len(rows)
    return label_batch(rows, unlabelled, range(len(rows)), around.pad).to(around.device)
