"""Hidden Markov models, against the sum over all paths and against hmmlearn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ConfigError, DataError, TrainingError
from fitune.language_models import hmm
from fitune.language_models.hmm import HiddenMarkov


def ids(sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.array(one, np.int32) for one in sequences]


def drawn(vocabulary: int, states: int, seed: int) -> HiddenMarkov:
    """A model of random numbers that learned nothing."""
    model = HiddenMarkov(vocabulary, states=states)
    draw = np.random.default_rng(seed)
    model.start = draw.dirichlet(np.ones(states))
    model.transitions = draw.dirichlet(np.ones(states), size=states)
    model.emissions = draw.dirichlet(np.ones(vocabulary + 1), size=states)
    return model


def of_path(model: HiddenMarkov, path: Sequence[int], tokens: Sequence[int]) -> float:
    """The probability of the states and the tokens together."""
    found = model.start[path[0]] * model.emissions[path[0], tokens[0]]
    for before, state, token in zip(path, path[1:], tokens[1:], strict=False):
        found *= model.transitions[before, state] * model.emissions[state, token]
    return float(found)


def paths(model: HiddenMarkov, tokens: Sequence[int]) -> dict[tuple[int, ...], float]:
    every = itertools.product(range(model.states), repeat=len(tokens))
    return {path: of_path(model, path, tokens) for path in every}


Sizes = tuple[int, int, int]
small = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**16))


@settings(max_examples=30, deadline=None)
@given(small, st.data())
def test_forward_and_viterbi_are_all_paths(sizes: Sizes, data: st.DataObject) -> None:
    vocabulary, states, seed = sizes
    model = drawn(vocabulary, states, seed)
    sequences = data.draw(
        st.lists(st.lists(st.integers(0, vocabulary - 1), max_size=5), min_size=1, max_size=5)
    )
    for one, logs in zip(sequences, model.log_probabilities(ids(sequences)), strict=True):
        tokens = [*one, vocabulary]
        for i in range(len(tokens)):
            total = sum(paths(model, tokens[: i + 1]).values())
            assert logs[: i + 1].sum() == pytest.approx(math.log(total), abs=1e-9)
        every = paths(model, tokens)
        path, log = model.most_likely_states(np.array(one, np.int32))
        assert log == pytest.approx(math.log(max(every.values())), abs=1e-9)
        assert every[tuple(path.tolist())] == pytest.approx(max(every.values()))


@settings(max_examples=30, deadline=None)
@given(small, st.lists(st.integers(0, 3), max_size=5))
def test_distributions_sum_to_one_and_are_what_scoring_says(
    sizes: Sizes, prefix: list[int]
) -> None:
    vocabulary, states, seed = sizes
    model = drawn(vocabulary, states, seed)
    prefix = [token % vocabulary for token in prefix]
    made = model.next_distribution(prefix)
    assert made.sum() == pytest.approx(1, abs=1e-12)
    for token in range(vocabulary):
        logs = model.log_probabilities(ids([[*prefix, token]]))[0]
        assert math.exp(logs[len(prefix)]) == pytest.approx(made[token])
    assert math.exp(model.log_probabilities(ids([prefix]))[0][-1]) == pytest.approx(made[-1])


def hmmlearns(model: HiddenMarkov) -> Any:
    """The same model in another library, which learns from where it stands."""
    library = pytest.importorskip("hmmlearn.hmm")
    other = library.CategoricalHMM(
        n_components=model.states, init_params="", n_iter=1, n_features=model.vocabulary + 1
    )
    other.startprob_, other.transmat_ = model.start, model.transitions
    other.emissionprob_ = model.emissions
    return other


def columns(sequences: list[np.ndarray], end: int) -> tuple[np.ndarray, list[int]]:
    whole = [np.append(one, end) for one in sequences]
    return np.concatenate(whole)[:, None], [len(one) for one in whole]


def some(count: int, vocabulary: int, longest: int = 40) -> list[np.ndarray]:
    draw = np.random.default_rng(5)
    lengths = draw.integers(0, longest, count)
    return [draw.integers(vocabulary, size=n).astype(np.int32) for n in lengths]


def test_likelihood_and_states_are_hmmlearns() -> None:
    model, sequences = drawn(12, 5, 3), some(30, 12)
    other = hmmlearns(model)
    found = sum(logs.sum() for logs in model.log_probabilities(sequences))
    assert found == pytest.approx(other.score(*columns(sequences, 12)), rel=1e-12)
    for one in sequences:
        path, log = model.most_likely_states(one)
        wanted, states = other.decode(*columns([one], 12))
        assert log == pytest.approx(wanted, rel=1e-12)
        np.testing.assert_array_equal(path, states)


def test_an_iteration_is_hmmlearns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Baum-Welch over many sequences and several batches: the same numbers afterwards."""
    monkeypatch.setattr(hmm, "AT_ONCE", 100)
    sequences = some(30, 12)
    begun, model = (HiddenMarkov(12, states=5, iterations=1, smoothing=0) for _ in range(2))
    counts = np.bincount(columns(sequences, 12)[0][:, 0], minlength=13)
    begun._begin(counts.astype(float))
    other = hmmlearns(begun)
    model.fit(sequences)
    assert model.history == [pytest.approx(other.score(*columns(sequences, 12)), rel=1e-12)]
    other.fit(*columns(sequences, 12))
    np.testing.assert_allclose(model.start, other.startprob_, atol=1e-12)
    np.testing.assert_allclose(model.transitions, other.transmat_, atol=1e-12)
    np.testing.assert_allclose(model.emissions, other.emissionprob_, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(small, st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=8), st.data())
def test_baum_welch_never_gets_worse(
    sizes: Sizes, text: list[list[int]], data: st.DataObject
) -> None:
    vocabulary, states, seed = sizes
    train = ids([[token % vocabulary for token in one] for one in text])
    smoothing = data.draw(st.sampled_from([0.0, 0.5, 10.0]))
    model = HiddenMarkov(
        vocabulary, states=states, iterations=12, smoothing=smoothing, tolerance=-1, seed=seed
    )
    model.fit(train)
    assert len(model.history) == 12
    for before, after in itertools.pairwise(model.history):
        assert after >= before - 1e-9 * (1 + abs(before))


def test_history_is_the_likelihood() -> None:
    train = some(20, 6)
    once, twice = (HiddenMarkov(6, states=3, iterations=n, smoothing=0) for n in (1, 2))
    once.fit(train)
    twice.fit(train)
    now = sum(logs.sum() for logs in once.log_probabilities(train))
    assert twice.history[1] == pytest.approx(now)


def test_it_finds_the_cycle_in_a_text() -> None:
    """Three states in turn, each with two tokens of its own: log 2 a token, log 1 for the end."""
    draw = np.random.default_rng(0)
    turns = np.arange(30) % 3 * 2
    train = [(turns + draw.integers(2, size=30)).astype(np.int32) for _ in range(60)]
    model = HiddenMarkov(6, states=4, iterations=200, tolerance=1e-7, smoothing=0.01)
    model.fit(train)
    mean = np.mean([logs.sum() for logs in model.log_probabilities(train)])
    # The end comes after 30 tokens, which four states cannot count: about one in ten times a third.
    assert -mean < 30 * math.log(2) + 5
    path, _ = model.most_likely_states(train[0])
    assert len(set(path[:30:3])) == len(set(path[1:30:3])) == 1


def test_smoothing_keeps_the_unseen_possible() -> None:
    train, test = ids([[0, 1, 0, 1]] * 5), ids([[0, 2, 1]])
    smooth = HiddenMarkov(3, states=2)
    smooth.fit(train)
    assert np.isfinite(smooth.log_probabilities(test)[0]).all()
    rough = HiddenMarkov(3, states=2, smoothing=0)
    rough.fit(train)
    logs = rough.log_probabilities(test)[0]
    assert logs[1] == -np.inf
    assert not np.isnan(logs).any()
    made = rough.next_distribution([0, 2])
    assert made.sum() == pytest.approx(1)


def test_validation_keeps_the_best_iteration() -> None:
    train, validation = some(6, 10, 12), some(40, 10, 12)[20:]
    kept = HiddenMarkov(10, states=8, iterations=60, tolerance=0)
    kept.fit(train, validation)
    last = HiddenMarkov(10, states=8, iterations=60, tolerance=0)
    last.fit(train)
    assert len(kept.history) < len(last.history)

    def of(model: HiddenMarkov) -> float:
        return float(sum(logs.sum() for logs in model.log_probabilities(validation)))

    assert of(kept) > of(last)


def test_sampling_is_seeded_and_follows_the_distribution() -> None:
    model = drawn(3, 3, 1)
    assert model.sample(20, seed=3) == model.sample(20, seed=3)
    pairs = [model.sample(2, seed=seed, prefix=[0, 1]) for seed in range(4000)]
    firsts = [pair[0] if pair else 3 for pair in pairs]
    shares = np.bincount(firsts, minlength=4) / len(firsts)
    np.testing.assert_allclose(shares, model.next_distribution([0, 1]), atol=0.03)
    common = int(shares[:3].argmax())
    seconds = [pair[1] if len(pair) > 1 else 3 for pair in pairs if pair and pair[0] == common]
    assert len(seconds) > 800
    shares = np.bincount(seconds, minlength=4) / len(seconds)
    np.testing.assert_allclose(shares, model.next_distribution([0, 1, common]), atol=0.05)


def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    train = some(20, 6)
    model = HiddenMarkov(6, states=3, seed=4)
    model.fit(train)
    model.save(tmp_path / "model")
    read = HiddenMarkov.load(tmp_path / "model")
    assert (read.seed, read.states, read.parameters) == (4, 3, 3 + 9 + 21)
    for found, wanted in zip(
        read.log_probabilities(train), model.log_probabilities(train), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}


def test_a_seed_decides() -> None:
    train = some(20, 6)
    same, again, other = (HiddenMarkov(6, states=3, seed=s, iterations=3) for s in (1, 1, 2))
    for model in (same, again, other):
        model.fit(train)
    np.testing.assert_array_equal(same.emissions, again.emissions)
    assert not np.allclose(same.emissions, other.emissions)


def test_what_is_refused() -> None:
    wrong: dict[str, Any]
    for wrong in ({"states": 0}, {"iterations": 0}, {"smoothing": -1.0}, {"smoothing": math.nan}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            HiddenMarkov(3, **wrong)
    with pytest.raises(ConfigError, match="vocabulary is 0"):
        HiddenMarkov(0)
    with pytest.raises(DataError, match="no sequence"):
        HiddenMarkov(3).fit([])
    for wrong_id in (3, 4, -1):
        with pytest.raises(DataError, match=f"token id {wrong_id} where the vocabulary has 3"):
            HiddenMarkov(3).fit(ids([[0, wrong_id]]))
    for ask in (
        lambda: HiddenMarkov(3).log_probabilities(ids([[0]])),
        lambda: HiddenMarkov(3).next_distribution([]),
        lambda: HiddenMarkov(3).most_likely_states(np.zeros(1, np.int32)),
    ):
        with pytest.raises(TrainingError, match="learned nothing"):
            ask()
