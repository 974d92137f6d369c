"""The model, objective, optimizer and batches that one training step needs.

Knows methods, objectives and optimizers, and puts them together as the fine-tuned approach does;
knows nothing of storages or peaks. The same scenario is traced on fake tensors and measured on
real ones, so the two differ in nothing but that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitune.data.batches import Batch, shares
from fitune.errors import ConfigError
from fitune.memory.options import Training
from fitune.models.architecture import kind_of
from fitune.models.classifier import NativeClassifier, PooledClassifier
from fitune.models.load import set_dropout
from fitune.models.pooling import Pooling
from fitune.models.quiet import quiet
from fitune.names import lookup
from fitune.training.attention import training_attention
from fitune.training.average import Average
from fitune.training.kernels.fused import fuse
from fitune.training.methods import (
    METHODS,
    checkpoint_activations,
    prepare,
    trainable_parameters,
)
from fitune.training.objectives import Classify, Dpo, Masked, Objective, Seq2Seq, Sft
from fitune.training.objectives.dpo import pair_batch
from fitune.training.objectives.head import head_is_last
from fitune.training.objectives.masked import HIDDEN
from fitune.training.optim import OPTIMIZERS, parameter_groups
from fitune.training.packing import choose_layout, rows_apart
from fitune.training.precision import Precision, precision
from fitune.training.rates import rate_factors
from fitune.training.step import step


@dataclass(frozen=True)
class Scenario:
    """Everything a step is called with."""

    model: Any
    objective: Objective
    optimizer: torch.optim.Optimizer
    parts: tuple[Batch, ...]
    training: Training
    average: Average | None = None

    @property
    def precision(self) -> Precision:
        options = self.training.options
        decodes = not isinstance(self.objective, Classify | Masked)
        return precision(options.dtype, options.method or "full", decoder=decodes)

    def step(self) -> None:
        """One optimizer step, by the function that training calls."""
        options = self.training.options
        self.model.train()
        with self._attention():
            step(
                self.model,
                self.objective,
                self.optimizer,
                self.parts,
                clip=options.clip,
                autocast=precision(options.dtype, options.method or "full", decoder=True).autocast,
            )
        if self.average is not None:
            self.average.update(trainable_parameters(self.model), step=1)

    def give_gradients(self) -> list[torch.Tensor]:
        """Gradients that say nothing, so that an update can come before the first step."""
        parameters = list(trainable_parameters(self.model).values())
        gradients = [torch.empty_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return gradients

    def update(self) -> None:
        """An update alone: the optimizer's states come to be."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def evaluate(self) -> None:
        """The validation loss of one micro-batch, as training asks for it between steps.

        Not in inference mode, which shows a tracker whole compounds of operations instead of the
        operations; the bytes are the same.
        """
        self.model.eval()
        parameters = trainable_parameters(self.model)
        averaged = self.average.applied(parameters) if self.average else nullcontext()
        with torch.no_grad(), averaged, rows_apart(self.model, self.parts[0]):
            self.objective.loss_sum(self.model, self.parts[0])

    @contextmanager
    def _attention(self) -> Iterator[None]:
        training = self.training
        if training.attention == "auto":
            with training_attention(self.model, longest=training.seq, device=training.device):
                yield
            return
        yield  # set when the model was built


def build_model(config: Any, training: Training, pooling: Pooling | None = None) -> nn.Module:
    """The model with the method's base in place, before the method is applied.

    Made on the device of the surrounding `torch.device` block, with random weights.
    """
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    config = copy.deepcopy(config)
    kind = kind_of(config)
    options = training.options
    dtype = precision(options.dtype, options.method or "full", decoder=kind != "encoder").weights
    set_dropout(config, options.dropout)
    chosen = {} if training.attention == "auto" else {"attn_implementation": training.attention}
    with quiet():
        if kind == "decoder":
            return AutoModelForCausalLM.from_config(config, dtype=dtype, **chosen)
        if kind == "encoder-decoder":
            return AutoModelForSeq2SeqLM.from_config(config, dtype=dtype, **chosen)
        if options.objective == "masked":
            return AutoModelForMaskedLM.from_config(config, dtype=dtype, **chosen)
        if pooling is not None:
            trunk = AutoModel.from_config(config, dtype=dtype, **chosen)
            return PooledClassifier(trunk, pooling, training.labels).to(dtype)
        config.num_labels = training.labels
        return NativeClassifier(
            AutoModelForSequenceClassification.from_config(config, dtype=dtype, **chosen)
        )


def checkpoint(model: Any, training: Training) -> Any:
    """Choose the layers that are checkpointed, for a method that is applied later to a part of the
    model's layers: the choice counts through all of them."""
    options = training.options
    if options.checkpointing:
        inner = model.model if isinstance(model, NativeClassifier) else model
        inner = model.trunk if isinstance(model, PooledClassifier) else inner
        checkpoint_activations(inner, int(options.checkpointing))
    return model


def apply_method(model: nn.Module, training: Training) -> nn.Module:
    """Let the method choose what trains, and wrap what it wraps, as a tuner does."""
    options = training.options
    method = lookup(options.method or "full", METHODS, "method")
    if isinstance(model, NativeClassifier):
        model.model = prepare(model.model, method, options)
    elif isinstance(model, PooledClassifier):
        model.trunk = prepare(model.trunk, method, options)
    else:
        model = prepare(model, method, options)
    return model


def ready(model: Any, training: Training) -> Any:
    """Let kernels stand in for layers, as before a training's first step."""
    options = training.options
    if options.fused:
        decodes = not isinstance(model, NativeClassifier | PooledClassifier)
        fuse(model, precision(options.dtype, options.method or "full", decoder=decodes).compute)
    return model


def assemble(model: Any, training: Training) -> Scenario:
    """A model whose parameters are where they are to be, ready to step.

    Called inside a fake tensor mode, everything made here is fake.
    """
    options = training.options
    classifies = isinstance(model, NativeClassifier | PooledClassifier)
    objective: Objective
    if classifies:
        objective = Classify(
            [],
            [],
            pad=0,
            label_smoothing=options.label_smoothing or 0.0,
            weights=[1.0] * training.labels if options.class_weights else None,
        )
    elif getattr(model.config, "is_encoder_decoder", False):
        objective = Seq2Seq([], [], pad=0)
    elif options.objective == "masked":
        objective = Masked([], pad=0, mask=0, words=[0], seed=0)
    else:
        packed = shared = False
        if training.packed and training.attention == "auto":
            packed, shared = choose_layout(model, options, training.device)
        fused = options.fused and head_is_last(model)
        objective = (
            Dpo([], pad=0, beta=1.0, packed=packed, shared=shared)
            if options.objective == "dpo"
            else Sft([], pad=0, packed=packed, shared=shared, fused=fused)
        )
    parameters = trainable_parameters(model)
    if not parameters:
        raise ConfigError(
            f"method '{options.method}' leaves no parameter of this model to train (its output "
            "layer is the embedding itself)",
            fix="use full, freeze or lora",
        )
    groups = parameter_groups(
        parameters,
        head=model.head_parameters() if classifies else [],
        learning_rate=options.learning_rate or 1e-5,
        head_learning_rate=options.head_learning_rate or 1e-5,
        weight_decay=options.weight_decay,
        factors=rate_factors(model, options),
    )
    optimizer = lookup(options.optimizer, OPTIMIZERS, "optimizer")(groups, options)
    part = _batch(training, objective, vocabulary=_vocabulary(model))
    average = Average(parameters, options.ema) if options.ema else None
    parts = (part,) * training.micro_batches
    return Scenario(model, objective, optimizer, parts, training, average)


def _batch(training: Training, objective: Objective, *, vocabulary: int) -> Batch:
    """A micro-batch of the wanted shape; what its tokens say plays no part."""
    rows, tokens = training.batch * training.sequences, training.seq

    def words(*shape: int) -> torch.Tensor:
        return torch.randint(2, max(3, vocabulary), shape, dtype=torch.int64)

    lengths = _even(tokens, training.segments) * rows if objective.packed else [tokens] * rows
    shared = training.shared_prefix if getattr(objective, "shared", False) else 0
    if not shares(shared, lengths):
        shared = 0
    own = [length - shared for length in lengths]
    shape = (1, shared + sum(own)) if objective.packed else (rows, tokens)
    mask = torch.ones(shape, dtype=torch.int64)
    if training.padded and not objective.packed:
        mask[0, -1] = 0
    answers, positions = None, None
    if isinstance(objective, Classify):
        targets = torch.zeros(rows, dtype=torch.int64)
    elif isinstance(objective, Seq2Seq):
        answer = training.answer_tokens or tokens
        answers, targets = words(rows, answer), words(rows * answer)
        positions = torch.arange(rows * answer)
    elif isinstance(objective, Masked):
        positions = torch.arange(rows * tokens)[: rows * max(1, round(HIDDEN * tokens))]
        targets = words(len(positions))
    else:
        # The last tokens of each row are learned, each predicted from the one before it.
        each = [min(training.answer_tokens or n - 1, n - 1) for n in own]
        count, learned = sum(each), torch.tensor(each)
        last = shared + torch.tensor(own).cumsum(0) - 1
        shift = (last - learned.cumsum(0)).repeat_interleave(learned, output_size=count)
        positions, targets = torch.arange(count) + shift, words(count)
    batch = Batch(
        words(*shape),
        mask,
        targets,
        positions,
        rows * tokens,
        tuple(range(len(lengths))),
        answers,
        packed=tuple(own) if objective.packed else (),
        shared=shared,
    )
    if isinstance(objective, Dpo):
        return pair_batch(batch, each, torch.zeros(len(lengths) // 2, 2))
    return batch


def _even(tokens: int, parts: int) -> list[int]:
    """`tokens` cut into parts that differ by one at most."""
    return [tokens // parts + (i >= parts - tokens % parts) for i in range(parts)]


def _vocabulary(model: Any) -> int:
    inner = getattr(model, "trunk", model)
    return int(inner.config.get_text_config().vocab_size)
