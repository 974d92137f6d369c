"""A model whose weights, or an adapter beside them, learn from the training rows.

Knows how training is set up and where it is saved; what differs between encoders and decoders is
in `encoder_tuner` and `decoder_tuner`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work
from fitune.approaches.fitting_options import refuse_unfit
from fitune.approaches.tuned_context import TunedContext
from fitune.approaches.tuner import Subject, Tuner
from fitune.approaches.tuners import TUNERS, with_objective
from fitune.data.batches import always_shared
from fitune.data.encoded import Encoded
from fitune.data.rows import Rows
from fitune.errors import TrainingError
from fitune.hardware import this_machine
from fitune.malloc import FRAGMENTED, has_plenty, prepare_for_training
from fitune.memory.estimate import estimate_training
from fitune.memory.headroom import live_bytes
from fitune.memory.micro_batch import micro_batch_tokens, rough_bytes
from fitune.memory.options import Training
from fitune.models.architecture import describe, read_config
from fitune.models.load import load_tokenizer
from fitune.models.pooling import read_pooling
from fitune.models.save import saved_tokenizer_folder
from fitune.models.source import ModelSource, resolve_source
from fitune.names import lookup
from fitune.quantization.weights import count_parameters
from fitune.runs import read_json, write_json
from fitune.training.attention import training_attention
from fitune.training.callbacks import Callbacks
from fitune.training.defaults import resolve
from fitune.training.kernels.fused import fused_layers
from fitune.training.loop import Settings, Trained, train
from fitune.training.methods import (
    METHODS,
    fingerprint,
    trainable_parameters,
    with_adapter,
)
from fitune.training.objectives import Objective
from fitune.training.optim import OPTIMIZERS, parameter_groups
from fitune.training.packing import wants_sharing
from fitune.training.precision import Precision, precision
from fitune.training.rates import rate_factors
from fitune.training.sinks import make_sinks
from fitune.training.track import MetricsFile
from fitune.training.trunk_cache import Surroundings, trunk_kept

OPTIONS = "options.json"
"""Where a rung keeps every option with its resolved default, from before its first step."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """What training is made of, besides the model.

    Attributes:
        items, validation_items: encoded rows.
        planned: a step as the estimate sees it.
        spare: bytes of main memory that the step leaves.
    """

    objective: Objective
    optimizer: torch.optim.Optimizer
    settings: Settings
    items: list[Any]
    validation_items: list[Any]
    planned: Training
    spare: int


class Finetuned:
    """Trains on `fit`, keeps the best weights by validation, and answers with them."""

    def __init__(
        self, options: config.Finetuned, work: Work, *, saved: ModelSource | None = None
    ) -> None:
        """`saved` is where `load` finds the tokenizer, and the weights unless an adapter."""
        self._options = options
        self.work = work
        self.source = (
            saved
            if saved is not None and Path(saved.location).name != "adapter"
            else resolve_source(
                options.model,
                download=work.task.download,
                trust_remote_code=work.task.trust_remote_code,
            )
        )
        self.architecture = describe(self.source)
        self.tokenizer = load_tokenizer(saved or self.source)
        self._options = options = with_objective(
            options if saved is not None else with_adapter(options),
            task=work.task.kind,
            kind=self.architecture.kind,
            model=self.source.name,
        )
        self.tuner: Tuner = lookup(options.objective or "", TUNERS, "objective")(
            Subject(self.source, self.tokenizer, options, work)
        )
        refuse_unfit(options, self.architecture, self.source.name, work)
        self.context = TunedContext(options, work, new=saved is None)
        self._cost = Cost(self.architecture.parameters, 0, 0)
        self.trained: Trained | None = None

    @property
    def _decodes(self) -> bool:
        return self.architecture.kind == "decoder"

    def fit(self, train_rows: Rows, validation: Rows) -> None:
        """Train, or go on from a checkpoint in the work's folder.

        Raises:
            DataError: rows too long, or nothing to learn.
            TrainingError: diverged, no parameter trains, or a callback failed.
            Interrupted: the work asked to stop; everything is saved.
        """
        work = self.work
        ready = self.make_ready(train_rows, validation)
        sinks = make_sinks(work.task.track)
        with (
            self.fast(ready),
            self._trunk_kept(ready),
            Callbacks(work.callbacks, sinks, work.notice) as callbacks,
        ):
            self.tuner.before_training(ready.validation_items)
            self.trained = train(
                self.tuner.model,
                ready.objective,
                ready.optimizer,
                ready.settings,
                folder=work.folder / "checkpoints",
                metrics=MetricsFile(work.folder / "metrics.jsonl"),
                validate=lambda: self.tuner.validate(ready.validation_items, validation),
                progress=work.progress,
                notice=work.notice,
                stop_requested=work.stop_requested,
                callback=callbacks,
            )
        if said := self.tuner.summary(self.trained):
            work.notice(said)

    def make_ready(self, train_rows: Rows, validation: Rows) -> Ready:
        """Everything that training needs, with every option resolved.

        Raises:
            DataError: rows too long, or nothing to learn.
            TrainingError: no parameter trains.
        """
        work = self.work
        options = resolve(
            self._options,
            self.architecture,
            rows=len(train_rows),
            dtype=work.dtype,
            seed=work.task.seed,
            pooling=read_pooling(self.source.folder),
        )
        options = self.context.resolved(options)
        assert options.max_length and options.method
        assert options.learning_rate and options.head_learning_rate
        self._options = options
        self.tuner.learn_limits(train_rows)
        train_rows = self.context.learned(train_rows, self.tuner, "training")
        validation = self.context.learned(validation, self.tuner, "validation")
        items, kept = self._encode(train_rows, "training", options.max_length, drop=True)
        valid_items, _ = self._encode(validation, "validation", options.max_length, drop=False)
        lengths = tuple(item.batch_tokens for item in items)
        planned = self._planned(options, items)
        if options.micro_batch_tokens is None:
            tokens = self._micro_batch_tokens(planned, lengths)
            options = options.model_copy(update={"micro_batch_tokens": tokens})
        self._options = options
        spare = (
            self._prepare_memory(planned, options.micro_batch_tokens or 1)
            if work.device == "cpu"
            else this_machine().memory_available
        )
        work.progress("loading", 0, 1)
        self.tuner.build(lookup(options.method or "", METHODS, "method"), options)
        work.progress("loading", 1, 1)
        parameters = trainable_parameters(self.tuner.model)
        if not parameters:
            raise TrainingError(
                f"method '{options.method}' leaves no parameter of '{self.source.name}' to train",
                fix="use full, freeze or lora",
            )
        smoothing = options.label_smoothing or 0.0
        objective = self.tuner.objective(items, [train_rows[i] for i in kept], smoothing)
        optimizer = lookup(options.optimizer, OPTIMIZERS, "optimizer")(
            parameter_groups(
                parameters,
                head=self.tuner.head_parameters(),
                learning_rate=options.learning_rate or 0.0,
                head_learning_rate=options.head_learning_rate or 0.0,
                weight_decay=options.weight_decay,
                factors=rate_factors(self.tuner.model, options),
            ),
            options,
        )
        write_json(work.folder / OPTIONS, options.model_dump())  # nothing is refused from here on
        self._cost = Cost(
            parameters=count_parameters(self.tuner.model) + self.context.parameters,
            trainable_parameters=sum(p.numel() for p in parameters.values()),
            rows=len(kept),
        )
        settings = Settings(
            options=options,
            lengths=lengths,
            autocast=self.computed.autocast,
            device=work.device,
            seed=options.seed or 0,
            fingerprint=self._fingerprint(train_rows, validation),
            validate_before=options.objective != "classify",
            sources=tuple(train_rows[i].source for i in kept) if len(kept) == len(items) else (),
        )
        return Ready(objective, optimizer, settings, items, valid_items, planned, spare)

    @property
    def computed(self) -> Precision:
        """In which dtypes."""
        options = self._options
        return precision(options.dtype, options.method or "", decoder=self._decodes)

    @contextmanager
    def fast(self, ready: Ready) -> Iterator[None]:
        """Inside the block, the model is computed by the kernels that train fastest."""
        model, wanted = self.tuner.model, self._options.fused
        with (
            training_attention(model, longest=ready.planned.seq, device=self.work.device),
            fused_layers(model, self.computed.compute, wanted=wanted),
        ):
            yield

    def _trunk_kept(self, ready: Ready) -> AbstractContextManager[None]:
        """Inside the block, what never changes is computed once for each row."""
        work = self.work
        return trunk_kept(
            self.tuner.model,
            [*ready.items, *ready.validation_items],
            ready.settings.options,
            Surroundings(
                pad=self.tokenizer.pad_token_id,
                device=work.device,
                autocast=self.computed.autocast,
                room=ready.spare // 4,
                folder=work.folder,
                progress=work.progress,
                notice=work.notice,
                stop_requested=work.stop_requested,
            ),
        )

    def _planned(self, options: config.Finetuned, items: list[Encoded]) -> Training:
        """A step with a whole batch of the longest rows."""
        work = self.work
        assert options.batch_size
        shares = options.objective == "sft" and wants_sharing(options)
        return Training(
            options=options,
            batch=options.batch_size,
            seq=max(len(item) for item in items),
            packed=options.packing,
            shared_prefix=always_shared(items) if shares else 0,
            padded=True,
            answer_tokens=max(sum(item.learned) for item in items) or None,
            labels=max(1, len(work.labels)),
            device="cuda" if work.device == "cuda" else "cpu",
        )

    def _micro_batch_tokens(self, planned: Training, lengths: Sequence[int]) -> int:
        """As this training began, if it did: free memory changes, and with another cut of its
        batches a resumed training would differ by rounding."""
        begun = self.work.folder / OPTIONS
        if begun.is_file() and (tokens := read_json(begun).get("micro_batch_tokens")):
            return int(tokens)
        return micro_batch_tokens(
            read_config(self.source),
            planned,
            lengths,
            live_bytes(self.work.memory_bytes, planned.device, dtype=planned.options.dtype),
            architecture=self.architecture,
            pooling=read_pooling(self.source.folder),
        )

    def _prepare_memory(self, planned: Training, tokens: int) -> int:
        """Have the C library keep what is freed if there is room for the holes it leaves.

        Nothing is traced where a rough bound says that there is plenty.

        Returns:
            the bytes that are not needed, holes included.
        """
        budget = self.work.memory_bytes
        needed = rough_bytes(self.architecture, max(tokens, planned.seq), planned.seq)
        if not has_plenty(needed, budget):
            rows = max(1, min(planned.batch, tokens // (planned.seq * planned.sequences)))
            step = dataclasses.replace(planned, batch=rows)
            pooling = read_pooling(self.source.folder)
            needed = estimate_training(read_config(self.source), step, pooling=pooling).peak_bytes
        prepare_for_training(needed, budget)
        grown = needed * FRAGMENTED if has_plenty(needed, budget) else needed
        return max(0, live_bytes(budget, "cpu", dtype=planned.options.dtype) - grown)

    def _encode(
        self, rows: Rows, what: str, max_length: int, *, drop: bool
    ) -> tuple[list[Encoded], list[int]]:
        items, kept, notes = self.tuner.encode_rows(
            rows,
            what=what,
            max_length=max_length,
            too_long=self.work.task.data.too_long,
            drop_allowed=drop,
            progress=self.work.progress,
        )
        for note in notes:
            self.work.notice(note)
        return items, kept

    def _fingerprint(self, train_rows: Rows, validation: Rows) -> str:
        """Everything that decides what training computes, but not in which parts and where, or how
        often it saves."""
        facts = {
            "options": self._options.model_dump(exclude={"name", *config.MAY_CHANGE}),
            "architecture": dataclasses.asdict(self.architecture),
            "train": train_rows.content_hash,
            "validation": validation.content_hash,
            "instruction": self.work.task.instruction,
            "chat_template": self.work.task.chat_template,
            "too_long": self.work.task.data.too_long,
            "device": self.work.device,
            **({"adapter": fingerprint(self._options)} if self._options.adapter else {}),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        return self.context.predict(rows, self.tuner, progress)

    @property
    def cost(self) -> Cost:
        return self._cost

    @property
    def options(self) -> dict[str, Any]:
        chosen = self._options.model_dump()
        if self.trained is not None:
            chosen["trained"] = dataclasses.asdict(self.trained)
        return chosen

    def save(self, folder: Path) -> None:
        self.tuner.save(folder)
        self.context.save(folder / "context")
        write_json(
            folder / "finetuned.json",
            {"options": self._options.model_dump(), "cost": dataclasses.asdict(self._cost)},
        )

    @classmethod
    def load(cls, folder: Path, work: Work) -> Finetuned:
        saved = read_json(folder / "finetuned.json")
        options = config.Finetuned.model_validate(saved["options"])
        place = str(saved_tokenizer_folder(folder).absolute())
        trusted = options.model in work.task.trust_remote_code
        # The saved tokenizer carries the chat template: the task's Jinja file is not read again.
        work = dataclasses.replace(
            work, task=work.task.model_copy(update={"chat_template": "auto"})
        )
        made = cls(
            options,
            work,
            saved=ModelSource(options.model, place, trust_remote_code=trusted),
        )
        made._cost = Cost(**saved["cost"])
        made.tuner.load(folder)
        made.context.load(folder / "context")
        return made
