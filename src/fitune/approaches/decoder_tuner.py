"""How a decoder is tuned to write answers, labels among them, and answers.

Knows causal language models and templates; the course of training is `finetuned`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fitune import config
from fitune.approaches.base import Prediction, Progress
from fitune.approaches.decoder import Answerer, answer_tokens
from fitune.approaches.tuner import Subject
from fitune.data.batches import micro_batches
from fitune.data.encoded import Encoded
from fitune.data.kept_tokens import kept
from fitune.data.limits import encode_rows
from fitune.data.rows import Row, Rows
from fitune.data.template import ChatTemplate
from fitune.models.load import load_decoder, training_config
from fitune.models.save import load_saved_decoder, save_decoder
from fitune.models.source import cache_folder
from fitune.quantization.weights import quantize_linear_layers
from fitune.runs import read_json, write_json
from fitune.training.loop import Trained, Validation
from fitune.training.methods import METHODS, Method, prepare
from fitune.training.objectives import Sft
from fitune.training.objectives.head import head_is_last
from fitune.training.packing import choose_layout, rows_apart
from fitune.training.precision import precision


class DecoderTuner:
    """A causal language model that learns to write the rows' answers."""

    def __init__(self, subject: Subject) -> None:
        self.source, self.tokenizer = subject.source, subject.tokenizer
        self.options, self.work = subject.options, subject.work
        self.template = ChatTemplate(
            self.tokenizer,
            instruction=self.work.task.instruction,
            chat_template=self.work.task.chat_template,
        )
        self.max_new_tokens = 0
        self.packed = self.shared = self.fused = False
        self.model: Any = None

    def build(self, method: Method, options: config.Finetuned) -> None:
        self.options = options
        dtype = precision(options.dtype, options.method or "", decoder=True).weights
        four_bit = method is METHODS["qlora"]
        model = load_decoder(
            self.source,
            dtype=dtype,
            device="cpu" if four_bit else self.work.device,
            config=training_config(self.source, options.dropout),
        )
        if four_bit:
            model = self._quantize(model, dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed or 0)
            self.model = prepare(model, method, options)
        self._choose_layout()
        if options.packing and not self.packed and self.work.device == "cpu":
            self.work.notice(
                f"rows are padded to one length: '{self.source.name}' cannot read rows laid end to "
                "end"
            )

    def _choose_layout(self) -> None:
        """How rows lie in a batch: the same for a trained model and for one read again, whose
        scores would else differ in the last digits."""
        self.packed, self.shared = choose_layout(self.model, self.options, self.work.device)
        self.fused = self.options.fused and head_is_last(self.model)

    def _quantize(self, model: Any, compute_dtype: torch.dtype) -> Any:
        """Layer by layer on its way to the device, which so never holds the unquantized model."""
        device = self.work.device
        return quantize_linear_layers(model, compute_dtype=compute_dtype, device=device).to(device)

    def encode(self, row: Row) -> Encoded:
        return self.template.encode(row)

    def encode_all(self, rows: Sequence[Row]) -> Iterable[Any]:
        """`encode` of each, many at a time, or as an earlier start kept them."""
        template = self.template
        return kept(cache_folder() / "tokens", template.identity, rows, template.encode_all)

    def encode_rows(
        self, rows: Rows, *, what: str, max_length: int, **limits: Any
    ) -> tuple[list[Encoded], list[int], list[str]]:
        return encode_rows(
            self.encode,
            rows,
            tokenizer=self.tokenizer,
            what=what,
            max_length=max_length,
            together=self.encode_all,
            **limits,
        )

    def objective(self, items: list[Encoded], rows: list[Row], smoothing: float) -> Sft:
        return self._sft(items, smoothing)

    def _sft(self, items: list[Encoded], smoothing: float = 0.0) -> Sft:
        return Sft(
            items,
            pad=self.tokenizer.pad_token_id,
            label_smoothing=smoothing,
            packed=self.packed,
            shared=self.shared,
            fused=self.fused,
        )

    def head_parameters(self) -> list[nn.Parameter]:
        return []

    def learn_limits(self, train: Rows) -> None:
        self.max_new_tokens = answer_tokens(self.work, self.template, train)

    def validate(self, items: list[Encoded], rows: Rows) -> Validation:
        """The mean loss of the validation answers' tokens.

        No metric: writing every validation answer takes longer than an epoch on a small machine.
        """
        objective = self._sft(items)
        total, learned = 0.0, 0
        self.model.eval()
        with torch.inference_mode():
            for batch in self.batches(objective, items):
                total += float(objective.loss_sum(self.model, batch))
                learned += batch.learned
        return Validation(total / learned, None)

    def batches(self, objective: Any, items: Sequence[Any]) -> Iterator[Any]:
        """All of an objective's rows, on the device, a micro-batch at a time; rows laid end to end
        read only themselves while it is in use."""
        lengths = [item.batch_tokens for item in items]
        assert self.options.micro_batch_tokens
        for part in micro_batches(
            range(len(items)), lengths, self.options.micro_batch_tokens, packed=self.packed
        ):
            batch = objective.batch(part).to(self.work.device)
            with rows_apart(self.model, batch):
                yield batch

    def before_training(self, validation: Sequence[Any]) -> None:
        """Nothing is kept of the untuned model."""

    def summary(self, trained: Trained) -> str | None:
        before, after = trained.before, trained.best.loss
        if before is None or after is None:
            return None
        return (
            f"the loss per token of held-out validation answers went from {before:.3f} "
            f"(untuned) to {after:.3f}."
        )

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        assert self.options.max_length
        answerer = Answerer(
            model=self.model,
            template=self.template,
            labels=self.work.labels,
            max_length=self.options.max_length,
            max_new_tokens=self.max_new_tokens,
            too_long=self.work.task.data.too_long,
            work=self.work,
        )
        return answerer.answer(rows, progress)

    def save(self, folder: Path) -> None:
        save_decoder(
            folder,
            self.model,
            self.tokenizer,
            chat_template=self.template.jinja,
            instruction=self.template.instruction,
            stop_tokens=self.template.stop_tokens,
        )
        write_json(folder / "answering.json", {"max_new_tokens": self.max_new_tokens})

    def load(self, folder: Path) -> None:
        self.model = load_saved_decoder(
            folder, self.source, device=self.work.device, quantize=self._quantize
        )
        self._choose_layout()
        self.max_new_tokens = read_json(folder / "answering.json")["max_new_tokens"]
