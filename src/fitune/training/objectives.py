"""What is minimised: sums of losses over learned tokens or rows.

Knows batches and a model's outputs; knows nothing of methods or optimizers. An objective returns a
*sum* in float32 and leaves the division to the step, so that the mean over a global batch is exact
however it was cut. To add one, write a class and a line in `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.nn import functional

from fitune.data.batches import Batch, answer_batch, label_batch, token_batch
from fitune.data.template import Encoded


class Objective(Protocol):
    """Turns rows into batches and batches into a loss."""

    def batch(self, rows: Sequence[int]) -> Batch:
        """The rows with these indices, padded."""

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The summed loss of a batch: a float32 scalar with a gradient."""


class Classify:
    """Cross-entropy of one label per row.

    Args:
        items: encoded rows.
        labels: the index of each row's label.
        label_smoothing: weight moved from the label to all labels alike (Szegedy et al.,
            arXiv:1512.00567, section 7).
    """

    def __init__(
        self, items: Sequence[Encoded], labels: Sequence[int], *, pad: int, label_smoothing: float
    ) -> None:
        self.items, self.labels, self.pad = items, labels, pad
        self.label_smoothing = label_smoothing

    def batch(self, rows: Sequence[int]) -> Batch:
        return label_batch(
            [self.items[i] for i in rows], [self.labels[i] for i in rows], rows, self.pad
        )

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` maps ``(input_ids, attention_mask)`` to logits ``[rows, labels]``."""
        logits = model(batch.input_ids, batch.attention_mask)
        return functional.cross_entropy(
            logits.float(), batch.targets, reduction="sum", label_smoothing=self.label_smoothing
        )


class Sft:
    """Cross-entropy of each learned token given those before it (supervised fine-tuning)."""

    def __init__(self, items: Sequence[Encoded], *, pad: int, label_smoothing: float = 0.0) -> None:
        self.items, self.pad, self.label_smoothing = items, pad, label_smoothing

    def batch(self, rows: Sequence[int]) -> Batch:
        return token_batch([self.items[i] for i in rows], rows, self.pad)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a causal language model of transformers.

        The output head runs on the hidden states of learned tokens only, so the logits are
        ``[learned, vocabulary]`` and never ``[rows, tokens, vocabulary]``.
        """
        with _head_inputs(model, batch.positions):
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        return functional.cross_entropy(
            logits[0].float(),
            batch.targets,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )


class Seq2Seq:
    """Cross-entropy of each token of an answer given the input and the tokens before it.

    Args:
        items: encoded inputs.
        answers: the token ids of each answer, its end included.
    """

    def __init__(
        self,
        items: Sequence[Encoded],
        answers: Sequence[Sequence[int]],
        *,
        pad: int,
        label_smoothing: float = 0.0,
    ) -> None:
        self.items, self.answers, self.pad = items, answers, pad
        self.label_smoothing = label_smoothing

    def batch(self, rows: Sequence[int]) -> Batch:
        return answer_batch(
            [self.items[i] for i in rows], [self.answers[i] for i in rows], rows, self.pad
        )

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a sequence-to-sequence language model of transformers; for its output head see
        `Sft`."""
        inputs = model.prepare_decoder_input_ids_from_labels(labels=batch.answers)
        with _head_inputs(model, batch.positions):
            logits = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                decoder_input_ids=inputs,
                use_cache=False,
            ).logits
        return functional.cross_entropy(
            logits[0].float(),
            batch.targets,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )


@contextmanager
def _head_inputs(model: Any, positions: torch.Tensor | None) -> Iterator[None]:
    """Inside the block, the output head sees ``[1, positions, hidden]`` of all hidden states.

    A hook on the head instead of a call of the trunk: whatever a family does after its head
    (scaling, soft capping) still happens, and no family needs to be known here.
    """

    def select(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0]
        return (hidden.flatten(0, 1).index_select(0, positions)[None],)  # type: ignore[arg-type]

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


OBJECTIVES: dict[str, type] = {"classify": Classify, "sft": Sft, "seq2seq": Seq2Seq}
