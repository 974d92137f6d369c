"""A recurrent network (Elman's, LSTM or GRU) that learns from the training rows alone.

Knows rows, vocabularies and the course of training; what differs between choosing a label and
writing an answer is in `recurrent_classifier` and `recurrent_generator`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work
from fitune.approaches.recurrent_classifier import Choosing
from fitune.approaches.recurrent_generator import Writing
from fitune.data.encoded import Encoded, Reason
from fitune.data.rows import Rows
from fitune.errors import DataError
from fitune.language_models.neural import count, load_weights, save_network
from fitune.language_models.vocabulary import Vocabulary, build_vocabulary
from fitune.runs import explain_damage, read_json
from fitune.training.callbacks import Callbacks
from fitune.training.loop import Settings, Trained, train
from fitune.training.optim import adamw, parameter_groups
from fitune.training.sinks import make_sinks
from fitune.training.track import MetricsFile

MOST_TOKENS = 30_000
"""Of a vocabulary: AdamW moves every embedding at every step, whether its token was read or not."""

SUBWORDS = 2_000
"""Few, for the few rows there are: longer ones would each be seen too rarely."""

MICRO_BATCH_TOKENS = 16_384
"""Read at once, padding included; what a backward pass needs of them is some hundred MB."""

PATIENCE = 5
"""Epochs without a better validation before training stops."""


class Recurrent:
    """Reads a row's tokens one after the other; for classify and for generate.

    Training is the loop of fine-tuned models: it keeps the best weights by the validation rows,
    stops early, and goes on after an interruption.
    """

    def __init__(self, options: config.Recurrent, work: Work) -> None:
        self.work = work
        self._options = _for_task(options, work)
        self._vocabulary = Vocabulary("words", ())
        self._learned: dict[str, Any] = {}
        self._half: Choosing | Writing | None = None
        self._rows = 0
        self.trained: Trained | None = None

    def fit(self, train_rows: Rows, validation: Rows) -> None:
        """Train, or go on from a checkpoint in the work's folder.

        Raises:
            DataError: no training row has a text.
            TrainingError: diverged, or a callback failed.
            Interrupted: the work asked to stop; everything is saved.
        """
        work, self._rows = self.work, len(train_rows)
        self._options = options = _for_rows(self._options, self._rows)
        self._vocabulary = self._read_vocabulary(train_rows)
        kind = Choosing if work.labels else Writing
        self._learned = kind.learned(train_rows, self._vocabulary, work)
        half = self._make()
        items, held_out = self._items(train_rows), self._items(validation)
        course = self._course(len(validation))
        groups = parameter_groups(
            dict(half.network.named_parameters()),
            head=(),
            learning_rate=options.learning_rate,
            head_learning_rate=options.learning_rate,
            weight_decay=course.weight_decay,
        )
        settings = Settings(
            options=course,
            lengths=tuple(len(item) for item in items),
            autocast=None,  # torch's recurrent layers are no faster in bf16 on a CPU
            device=work.device,
            seed=options.seed or 0,
            fingerprint=self._fingerprint(train_rows, validation),
            sources=tuple(row.source for row in train_rows),
        )
        with Callbacks(work.callbacks, make_sinks(work.task.track), work.notice) as callbacks:
            self.trained = train(
                half.network,
                half.objective(items, train_rows),
                adamw(groups, course),
                settings,
                folder=work.folder / "checkpoints",
                metrics=MetricsFile(work.folder / "metrics.jsonl"),
                validate=lambda: half.validate(held_out, validation),
                progress=work.progress,
                notice=work.notice,
                stop_requested=work.stop_requested,
                callback=callbacks,
            )

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        assert self._half is not None, "fit or load comes first"
        return self._half.answer(self._items(rows), progress)

    def _read_vocabulary(self, train_rows: Rows) -> Vocabulary:
        texts = train_rows.whole_texts
        if not any(text.strip() for text in texts):
            raise DataError(
                f"there is no text in any of the {len(texts):,} training rows",
                fix="set data.input to the column with the text",
            )
        tokens = self._options.tokens or ""
        return build_vocabulary(
            texts if self.work.labels else [*texts, *train_rows.answers],
            tokens,
            size=SUBWORDS if tokens == "subwords" else MOST_TOKENS,
            lowercase=bool(self.work.labels),  # what is written keeps its capitals
        )

    def _make(self) -> Choosing | Writing:
        kind = Choosing if self.work.labels else Writing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._options.seed or 0)
            self._half = kind(self._vocabulary, self._options, self.work, **self._learned)
        self._half.network.to(self.work.device)
        return self._half

    def _items(self, rows: Rows) -> list[Encoded]:
        """Each row's tokens; of one without any, the token that is the end of all."""
        encoded = self._vocabulary.encode_all(rows.whole_texts)
        end = (len(self._vocabulary),)
        ids = [tuple(one.tolist()) or end for one in encoded]
        return [Encoded(one, (Reason.TEXT,) * len(one)) for one in ids]

    def _course(self, held_out: int) -> config.Finetuned:
        """What the loop reads, in the words of a fine-tuned model."""
        options = self._options
        assert options.epochs
        return config.Finetuned(
            model=options.cell,
            objective="classify" if self.work.labels else "sft",
            epochs=options.epochs,
            batch_size=options.batch_size,
            micro_batch_tokens=MICRO_BATCH_TOKENS,
            learning_rate=options.learning_rate,
            # Without validation rows nothing tells when to stop.
            patience=PATIENCE if held_out else math.ceil(options.epochs) + 1,
            seed=options.seed,
        )

    def _fingerprint(self, train_rows: Rows, validation: Rows) -> str:
        """Everything that decides what training computes."""
        facts = {
            "options": self._options.model_dump(exclude={"name"}),
            "vocabulary": [self._vocabulary.tokens, self._vocabulary.merges],
            "learned": self._learned,
            "train": train_rows.content_hash,
            "validation": validation.content_hash,
            "device": self.work.device,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def cost(self) -> Cost:
        size = count(self._half.network) if self._half else 0
        return Cost(parameters=size, trainable_parameters=size, rows=self._rows)

    @property
    def options(self) -> dict[str, Any]:
        chosen = self._options.model_dump()
        if self.trained is not None:
            chosen["trained"] = dataclasses.asdict(self.trained)
        return chosen

    def save(self, folder: Path) -> None:
        assert self._half is not None, "fit or load comes first"
        about = {
            "options": self._options.model_dump(),
            "learned": self._learned,
            "rows": self._rows,
        }
        save_network(folder, self._half.network, about)
        self._vocabulary.save(folder / "vocabulary.json")

    @classmethod
    def load(cls, folder: Path, work: Work) -> Recurrent:
        saved = read_json(folder / "model.json")
        with explain_damage(folder / "model.json"):
            made = cls(config.Recurrent(**saved["options"]), work)
            made._learned, made._rows = saved["learned"], saved["rows"]
            made._vocabulary = Vocabulary.load(folder / "vocabulary.json")
            half = made._make()
        load_weights(folder / "model.safetensors", half.network)
        return made


def _for_task(options: config.Recurrent, work: Work) -> config.Recurrent:
    """What is not given and goes by the task.

    Hidden tokens and strong dropout are for choosing, where a few of many words decide; what writes
    must know each token of what it reads.
    """
    chooses = bool(work.labels)
    defaults = {
        "tokens": "words" if chooses else "subwords",
        "dropout": 0.4 if chooses else 0.2,
        "word_dropout": 0.1 if chooses else 0.0,
        "seed": work.task.seed,
    }
    return _with_defaults(options, defaults)


def _for_rows(options: config.Recurrent, rows: int) -> config.Recurrent:
    """What is not given and goes by the number of training rows.

    Few rows are read more often and in smaller batches, to get enough steps: 14 epochs at 10,000
    rows, the last of which brought banking77's held-out rows no more. At other sizes it is a guess.
    """
    defaults = {
        "epochs": float(min(40, max(3, round(1400 / math.sqrt(rows))))),
        "batch_size": 8 if rows < 1_000 else 32 if rows < 5_000 else 64,
    }
    return _with_defaults(options, defaults)


def _with_defaults(options: config.Recurrent, defaults: dict[str, Any]) -> config.Recurrent:
    missing = {name for name in defaults if getattr(options, name) is None}
    return options.model_copy(update={name: defaults[name] for name in missing})
