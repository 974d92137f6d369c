"""Models by name, with what they are made of."""

from __future__ import annotations

from typing import Any

import pytest

from fitune.errors import ConfigError
from fitune.language_models import LANGUAGE_MODELS
from fitune.language_models.hmm import HiddenMarkov
from fitune.language_models.making import NEURAL, RATES, Making, make_model, make_small
from fitune.language_models.ngram import NGram
from fitune.language_models.recurrent import Gru, Lstm, Rnn
from fitune.language_models.transformer import Transformer

MAKING = Making(order=3, states=7, hidden=16, layers=3, epochs=2.0, seed=5)


def test_every_name_makes_its_model() -> None:
    kinds = {name: type(make_model(name, 9, MAKING)) for name in LANGUAGE_MODELS}
    assert kinds == {
        "ngram": NGram,
        "hmm": HiddenMarkov,
        "rnn": Rnn,
        "lstm": Lstm,
        "gru": Gru,
        "transformer": Transformer,
    }
    assert set(NEURAL) == set(RATES) == set(kinds) - {"ngram", "hmm"}


def made(name: str, **options: Any) -> Any:
    return make_model(name, 9, MAKING, **options)


def test_each_takes_what_concerns_it() -> None:
    assert made("ngram").order == 3
    assert made("hmm").states == 7
    for name in NEURAL:
        model = made(name, seconds=4.0)
        assert (model.options.hidden, model.options.layers) == (16, 3)
        assert (model.training.epochs, model.training.seed) == (2.0, 5)
        assert (model.training.seconds, model.training.learning_rate) == (4.0, RATES[name])


def test_for_the_small_language_steps_are_small() -> None:
    for name in NEURAL:
        usual: Any = made(name)
        small: Any = make_small(name, 9, MAKING)
        assert small.options.hidden == 64
        assert small.training.batch_tokens * 2 == usual.training.batch_tokens
        assert small.training.learning_rate * 2 == usual.training.learning_rate


def test_any_width_of_the_command_line_has_heads() -> None:
    for hidden in (8, 16, 24, 40, 136):
        assert make_model("transformer", 5, Making(hidden=hidden)).parameters > 0


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lstm'"):
        make_model("lsmt", 9, MAKING)
