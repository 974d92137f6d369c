"""How a decoder is tuned to prefer one answer of a pair to the other.

Knows causal language models, templates and pairs; the course of training is `finetuned`'s matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fitune.approaches.base import Prediction, Progress
from fitune.approaches.decoder_tuner import DecoderTuner
from fitune.approaches.tuner import Subject
from fitune.data.preference import refuse_unpaired
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError
from fitune.evaluation.metrics import METRICS
from fitune.evaluation.significance import interval
from fitune.training.checkpoint import load_parameters, save_parameters
from fitune.training.loop import Trained, Validation
from fitune.training.objectives.dpo import Dpo, EncodedPair, pair_log_probs
from fitune.training.precision import FROZEN_BASE, precision


class PreferenceTuner(DecoderTuner):
    """A causal language model that learns by direct preference optimization.

    Its reference is the model as it is before the first step (adapters add nothing then), so there
    is no second copy of it: what it says of every pair is computed once and kept.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        smoothing = subject.options.label_smoothing
        if smoothing and smoothing >= 0.5:
            raise ConfigError(
                f"label_smoothing is {smoothing:g}, and with objective dpo it is the "
                "share of pairs that are the wrong way round, which is below 0.5",
                fix="lower it, e.g. to 0.1",
            )
        self._train: Dpo | None = None
        self._held_out: Dpo | None = None

    def learn_limits(self, train: Rows) -> None:
        refuse_unpaired(train, "training")
        super().learn_limits(train)

    def encode(self, row: Row) -> EncodedPair:  # type: ignore[override]
        """Both answers after the same prompt.

        Raises:
            DataError: they are no pair of different answers.
        """
        refuse_unpaired(Rows((row,)), "validation")
        return EncodedPair(super().encode(row), super().encode(_rejected(row)))

    def encode_all(self, rows: Sequence[Row]) -> Iterable[EncodedPair]:
        for row in rows:
            refuse_unpaired(Rows((row,)), "validation")
        rejected = super().encode_all([_rejected(row) for row in rows])
        for pair in zip(super().encode_all(rows), rejected, strict=True):
            yield EncodedPair(*pair)

    def objective(  # type: ignore[override]
        self, items: Sequence[EncodedPair], rows: list[Row], smoothing: float
    ) -> Dpo:
        self._train = self._dpo(items, smoothing)
        return self._train

    def _dpo(self, items: Sequence[EncodedPair], smoothing: float = 0.0) -> Dpo:
        assert self.options.dpo_beta
        return Dpo(
            items,
            pad=self.tokenizer.pad_token_id,
            beta=self.options.dpo_beta,
            label_smoothing=smoothing,
            packed=self.packed,
            shared=self.shared,
        )

    def before_training(self, validation: Sequence[Any]) -> None:
        """Compute what the reference says of training and validation pairs, or read it, where a
        training that goes on has computed it before its first step."""
        assert self._train is not None
        self._held_out = self._dpo(validation, self._train.label_smoothing)
        parts = {"train": self._train, "validation": self._held_out}
        folder = self.work.folder / "checkpoints" / f"reference-{self._key(parts)}"
        if folder.is_dir():
            known = load_parameters(folder)
        else:
            known = {name: self._reference(part) for name, part in parts.items()}
            save_parameters(folder, known)
        for name, part in parts.items():
            part.reference = known[name]

    def _key(self, parts: dict[str, Dpo]) -> str:
        """Identifies model and pairs."""
        tokens = {
            name: [[pair.chosen.tokens, pair.rejected.tokens] for pair in part.pairs]
            for name, part in parts.items()
        }
        facts = [self.options.model, self.options.dtype, self.options.method, tokens]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def _reference(self, part: Dpo) -> torch.Tensor:
        """``[pairs, 2]`` float32, of the model as it is."""
        found = torch.empty(len(part.pairs), 2)
        self.model.eval()
        done = 0
        with torch.inference_mode(), self._autocast():
            for batch in self.batches(part, part.pairs):
                found[list(batch.rows)] = pair_log_probs(self.model, batch).float().cpu()
                done += len(batch.rows)
                self.work.progress("reference", done, len(part.pairs))
        return found

    def _autocast(self) -> Any:
        dtype = precision(self.options.dtype, self.options.method or "", decoder=True).autocast
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast("cuda" if self.work.device == "cuda" else "cpu", dtype=dtype)

    def validate(self, items: Sequence[Any], rows: Rows) -> Validation:
        """Loss, and the share of pairs whose chosen answer has the higher implicit reward.

        The error is that of a share, ``std / sqrt(pairs)``.
        """
        assert self._held_out is not None
        margins = self._margins(self._held_out)
        right = (margins > 0).double()
        loss = float(self._held_out.losses(margins.double()).mean())
        error = float(right.std(correction=0) / len(right) ** 0.5)
        return Validation(loss, float(right.mean()), error)

    def _margins(self, part: Dpo) -> torch.Tensor:
        """``[pairs]`` float32."""
        found = torch.empty(len(part.pairs))
        self.model.eval()
        with torch.inference_mode(), self._autocast():
            for batch in self.batches(part, part.pairs):
                found[list(batch.rows)] = part.margins(self.model, batch).float().cpu()
        return found

    def summary(self, trained: Trained) -> str | None:
        """How training changed the validation pairs."""
        before, after = trained.before, trained.best
        assert self._held_out is not None and after.score is not None
        pairs = len(self._held_out.pairs)
        return (
            f"the loss of held-out validation pairs went from {before or 0.0:.3f} (untuned) to "
            f"{after.loss or 0.0:.3f}; {_preferred(round(after.score * pairs), pairs)}."
        )

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        """Also says of how many pairs the chosen answer is preferred, where the reference is at
        hand: the model without its adapter."""
        answers = super().predict(rows, progress)
        paired = [row for row in rows if row.rejected not in (None, row.answer)]
        pairs = [pair for row in paired if len(pair := self.encode(row)) <= self._longest]
        if self._starts_as_nothing and pairs:
            part = self._dpo(pairs)
            with self.model.disable_adapter():
                part.reference = self._reference(part)
            right = int((self._margins(part) > 0).sum())
            self.work.notice(f"of the answered rows, {_preferred(right, len(pairs))}.")
        return answers

    @property
    def _starts_as_nothing(self) -> bool:
        """Whether the model without its adapter is the reference."""
        options = self.options
        starts_at_zero = options.lora_init == "zero" and options.adapter is None
        return options.method in FROZEN_BASE and starts_at_zero

    @property
    def _longest(self) -> int:
        assert self.options.max_length
        return self.options.max_length


def _rejected(row: Row) -> Row:
    return Row(row.text, row.rejected, row.history, row.source)


def _preferred(right: int, pairs: int) -> str:
    said = ["chosen"] * right + ["rejected"] * (pairs - right)
    found = interval(METRICS["accuracy"], said, ["chosen"] * pairs)
    return (
        f"the chosen answer has the higher implicit reward in {right / pairs:.1%} of {pairs:,} "
        f"pairs (95 % interval {found.low:.1%} to {found.high:.1%})"
    )
