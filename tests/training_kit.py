"""What tests of training share: encoded rows, a tiny decoder, and the loop with quiet callables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from fitune.config import Finetuned
from fitune.data.rows import Row
from fitune.data.template import ChatTemplate, Encoded
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.source import resolve_source
from fitune.training.callbacks import Callback
from fitune.training.kernels.fused import fused_layers
from fitune.training.loop import Settings, Trained, Validation, train
from fitune.training.methods import METHODS, trainable_parameters
from fitune.training.objectives import Sft
from fitune.training.objectives.head import head_is_last
from fitune.training.optim import OPTIMIZERS, parameter_groups
from fitune.training.packing import choose_layout, rows_apart
from fitune.training.track import MetricsFile

OPTIONS = Finetuned(
    method="lora",
    rank=4,
    learning_rate=5e-3,
    head_learning_rate=5e-3,
    epochs=3,
    batch_size=8,
    micro_batch_tokens=4096,
    label_smoothing=0.0,
    warmup=0.0,
    dtype="fp32",
    max_length=128,
    seed=0,
    patience=100,
)


def conversations(count: int) -> list[Row]:
    """Rows of very different lengths, of questions and of answers."""
    return [
        Row(
            text="what is my "
            + " ".join(["card", "pin", "bank", "fee"][: 1 + i % 4] * (1 + i % 5)),
            answer=" ".join(["help", "top", "up"] * (1 + (i * 7) % 6)),
            source=f"row {i}",
        )
        for i in range(count)
    ]


class Kit:
    """A tiny decoder, ready to train by any method.

    Args:
        random_b: draw LoRA's B at random instead of zero, where it would hide A's gradient.
    """

    def __init__(
        self, folder: Path, options: Finetuned, *, rows: int = 40, random_b: bool = False
    ) -> None:
        source = resolve_source(str(folder))
        self.options = options
        self.tokenizer = load_tokenizer(source)
        self.template = ChatTemplate(self.tokenizer, instruction="answer with one")
        self.items: list[Encoded] = [self.template.encode(row) for row in conversations(rows)]
        torch.manual_seed(0)
        base = load_decoder(source, dtype=torch.float32, device="cpu")
        self.model: Any = METHODS[options.method or "full"](base, options)
        if random_b:
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
        packed, shared = choose_layout(self.model, options)
        self.objective = Sft(
            self.items,
            pad=self.tokenizer.pad_token_id,
            packed=packed,
            shared=shared,
            fused=options.fused and head_is_last(self.model),
        )

    def fused(self) -> AbstractContextManager[None]:
        """Inside the block, the model's layers are computed by kernels, as in a real training."""
        compute = torch.bfloat16 if self.options.dtype == "bf16" else torch.float32
        return fused_layers(self.model, compute, wanted=self.options.fused)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(len(item) for item in self.items)

    def optimizer(self) -> torch.optim.Optimizer:
        rate = self.options.learning_rate or 0.0
        groups = parameter_groups(
            trainable_parameters(self.model),
            head=[],
            learning_rate=rate,
            head_learning_rate=rate,
            weight_decay=self.options.weight_decay,
        )
        return OPTIMIZERS[self.options.optimizer](groups, self.options)

    def optimizer_at(self, rate: float) -> torch.optim.Optimizer:
        """The optimizer with its learning rate set, for single steps outside the loop."""
        optimizer = self.optimizer()
        for group in optimizer.param_groups:
            group["lr"] = rate
        return optimizer

    def train(
        self,
        folder: Path,
        *,
        stop_requested: Callable[[], bool] = lambda: False,
        validate: Callable[[], Validation] | None = None,
        notices: list[str] | None = None,
        fingerprint: str = "same",
        validate_before: bool = False,
        callback: Callback | None = None,
    ) -> Trained:
        with self.fused():
            return train(
                self.model,
                self.objective,
                self.optimizer(),
                Settings(
                    options=self.options,
                    lengths=self.lengths,
                    autocast=torch.bfloat16 if self.options.dtype == "bf16" else None,
                    device="cpu",
                    seed=self.options.seed or 0,
                    fingerprint=fingerprint,
                    validate_before=validate_before,
                ),
                folder=folder / "checkpoints",
                metrics=MetricsFile(folder / "metrics.jsonl"),
                validate=validate or self.validation,
                progress=lambda label, done, total: None,
                notice=(notices if notices is not None else []).append,
                stop_requested=stop_requested,
                callback=callback,
            )

    def validation(self) -> Validation:
        with torch.inference_mode():
            batch = self.objective.batch(range(8))
            with rows_apart(self.model, batch):
                loss = float(self.objective.loss_sum(self.model, batch))
            return Validation(loss / batch.learned, None)
