"""Language models by name, with what they are made of.

Knows the table of models and their options; knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fitune.hardware import this_machine
from fitune.language_models import LANGUAGE_MODELS, LanguageModel
from fitune.language_models.neural import Progress, Training, silent
from fitune.language_models.recurrent import RecurrentOptions
from fitune.language_models.transformer import TransformerOptions
from fitune.names import lookup

NEURAL = ("rnn", "lstm", "gru", "transformer")
"""Those that `Training` is for."""

RATES = {"rnn": 8e-3, "lstm": 8e-3, "gru": 8e-3, "transformer": 2e-3}
"""Learning rates at 128 values a layer: the best of two or three, after 400,000 characters of
Shakespeare; not tuned further."""


@dataclass(frozen=True)
class Making:
    """What models are made of; each takes what concerns it.

    Attributes:
        order: of n-grams.
        states: of the hidden Markov model.
        hidden: values of a layer of a network.
        layers: of a network; None: one recurrent, two of a transformer.
        epochs: over the training sequences; None: see `neural.Training`.
        calm: what a network's batch and learning rate are multiplied by.
        seed: of everything that is drawn.
    """

    order: int = 5
    states: int = 32
    hidden: int = 128
    layers: int | None = None
    epochs: float | None = None
    calm: float = 1.0
    seed: int = 0


def make_model(
    name: str,
    vocabulary: int,
    making: Making,
    *,
    seconds: float | None = None,
    progress: Progress = silent,
) -> LanguageModel:
    """A model that has learned nothing.

    Args:
        name: of `LANGUAGE_MODELS`.
        vocabulary: how many tokens there are.
        seconds: that a network may train; None: no limit.

    Raises:
        ConfigError: there is no such model, or an option is out of its limits.
    """
    make: Callable[..., LanguageModel] = lookup(name, LANGUAGE_MODELS, "language model")
    if name == "ngram":
        return make(vocabulary, order=making.order)
    if name == "hmm":
        return make(vocabulary, states=making.states, seed=making.seed)
    if name not in NEURAL:
        return make(vocabulary)
    training = Training(
        epochs=making.epochs,
        learning_rate=making.calm * RATES[name],
        batch_tokens=round(making.calm * (1024 if name == "transformer" else 512)),
        dtype="bf16" if this_machine().native_bf16 else "fp32",
        seconds=seconds,
        seed=making.seed,
    )
    shape: Any
    if name == "transformer":
        heads = next(n for n in (4, 2, 1) if making.hidden % (2 * n) == 0)
        shape = TransformerOptions(hidden=making.hidden, layers=making.layers or 2, heads=heads)
    else:
        shape = RecurrentOptions(hidden=making.hidden, layers=making.layers or 1)
    return make(vocabulary, shape, training, progress=progress)


def make_small(name: str, vocabulary: int, making: Making) -> LanguageModel:
    """A model for the small language, whose networks are small, read it often, and take small
    steps: twice as many sentences a step, and a transformer does not learn agreement."""
    return make_model(name, vocabulary, replace(making, hidden=64, epochs=12.0, calm=0.5))
