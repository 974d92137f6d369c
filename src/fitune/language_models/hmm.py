"""A hidden Markov language model: an unseen state moves at each token and says the token.

Knows states, transitions and emissions; knows nothing of text. The end of a sequence is a token
like any other, said last, so that probabilities of whole sequences sum to 1.

Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech
recognition", Proceedings of the IEEE 77(2): forward and backward as of section V.A (scaled, with
several sequences as of V.B), Viterbi as of III.B (in logs), Baum-Welch as of III.C.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError, DataError, TrainingError
from fitune.language_models import Floats, Ids
from fitune.language_models.batches import batches
from fitune.language_models.side_by_side import SideBySide
from fitune.runs import read_json, write_json

AT_ONCE = 2**16
"""Tokens in a batch: with 32 states, 60 MB."""

PATIENCE = 2
"""Iterations without a better validation likelihood before training stops."""


class HiddenMarkov:
    """States with a start distribution, transitions and emissions, all float64.

    Args:
        vocabulary: how many tokens there are.
        states: hidden ones.
        iterations: of Baum-Welch, at the most.
        smoothing: how many tokens, spread as in the whole training text, each state is taken to
            have said before any was seen; with 0 a token that was not seen is impossible.
        tolerance: nats a token; training stops where an iteration gains less.
        seed: of the first transitions and emissions.

    Attributes:
        start: [states].
        transitions: [states, states], from row to column.
        emissions: [states, vocabulary + 1], the end last.
        history: before each iteration, the log likelihood of the training text plus the log of
            what `smoothing` takes to be likely, in nats: what Baum-Welch never lowers.

    Raises:
        ConfigError: an option is out of its limits.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        states: int = 32,
        iterations: int = 30,
        smoothing: float = 1.0,
        tolerance: float = 1e-4,
        seed: int = 0,
    ) -> None:
        for name, value in (
            ("vocabulary", vocabulary), ("states", states), ("iterations", iterations)
        ):  # fmt: skip
            if value < 1:
                raise ConfigError(f"{name} is {value}", fix=f"set {name} to at least 1")
        if not 0 <= smoothing < np.inf:
            raise ConfigError(f"smoothing is {smoothing}", fix="set smoothing to 0 or more")
        self.vocabulary = vocabulary
        self.states = states
        self.iterations = iterations
        self.smoothing = smoothing
        self.tolerance = tolerance
        self.seed = seed
        self.start: Floats = np.zeros(0)
        self.transitions: Floats = np.zeros((0, 0))
        self.emissions: Floats = np.zeros((0, 0))
        self.history: list[float] = []

    # --- learning --------------------------------------------------------------------------------

    def fit(self, train: Sequence[Ids], validation: Sequence[Ids] = ()) -> None:
        """Baum-Welch from a seeded start; with `validation`, the best of its iterations is kept.

        Raises:
            DataError: `train` is empty, or a token id is outside of the vocabulary.
        """
        if not len(train):
            raise DataError(
                "there is no sequence to learn from", fix="give a text with at least one line"
            )
        parts = [SideBySide.of(batch, self.vocabulary) for batch in batches(train, AT_ONCE)]
        counts = np.zeros(self.vocabulary + 1)
        for part in parts:
            counts += np.bincount(part.tokens, minlength=self.vocabulary + 1)
        spread = self._begin(counts)
        self.history = []
        best, kept, waited = -np.inf, None, 0
        for _ in range(self.iterations):
            self._iterate(parts, spread)
            if len(validation):
                found = sum(float(logs.sum()) for logs in self.log_probabilities(validation))
                if found > best:
                    best, waited = found, 0
                    kept = self.start, self.transitions, self.emissions
                else:
                    waited += 1
                if waited == PATIENCE:
                    break
            if len(self.history) > 1:
                gained = self.history[-1] - self.history[-2]
                if gained < self.tolerance * counts.sum():
                    break
        if kept is not None:
            self.start, self.transitions, self.emissions = kept

    def _begin(self, counts: Floats) -> Floats:
        """Seeded first values; returns how tokens are spread where nothing else is known, which is
        as in the training text with one more of each."""
        draw = np.random.default_rng(self.seed)
        spread: Floats = (counts + 1) / (counts + 1).sum()
        self.start = _rows(draw.random((1, self.states)) + 1)[0]
        self.transitions = _rows(draw.random((self.states, self.states)) + 1)
        self.emissions = _rows(spread * draw.exponential(size=(self.states, len(spread))) + 1e-12)
        return spread

    def _iterate(self, parts: list[SideBySide], spread: Floats) -> None:
        """One iteration of Baum-Welch with a Dirichlet prior on emissions, which makes it find the
        most probable model given the text (maximum a posteriori; `smoothing` 0: given nothing)."""
        start = np.zeros(self.states)
        moves = np.zeros((self.states, self.states))
        said = np.zeros((len(spread), self.states))
        found = 0.0
        for part in parts:
            alphas, scales = self._forward(part)
            found += float(np.log(scales).sum())
            occupied, pairs = self._backward(part, alphas, scales)
            start += occupied[: part.active[0]].sum(axis=0)
            moves += pairs
            said += part.by_token(occupied, len(spread))
        if self.smoothing:
            found += self.smoothing * float((np.log(self.emissions) @ spread).sum())
        self.history.append(found)
        self.start = start / start.sum()
        self.transitions = _rows(moves, self.transitions)
        self.emissions = _rows(said.T + self.smoothing * spread, self.emissions)

    def _forward(self, part: SideBySide) -> tuple[Floats, Floats]:
        """Probabilities of the states at each token given the tokens up to it, [tokens, states],
        and of each token given those before it, [tokens]."""
        says = self.emissions.T[part.tokens]
        alphas, scales = says, np.empty(len(says))
        for first, last, before in part.steps():
            now = alphas[first:last]
            if before is None:
                now *= self.start
            else:
                now *= alphas[before : before + last - first] @ self.transitions
            scale = now.sum(axis=1)
            scales[first:last] = scale
            if not scale.all():  # impossible: where it then stands, nothing says
                now[scale == 0] = 1
                scale = now.sum(axis=1)
            now /= scale[:, None]
        return alphas, scales

    def _backward(self, part: SideBySide, alphas: Floats, scales: Floats) -> tuple[Floats, Floats]:
        """Probabilities of the states at each token given its whole sequence, [tokens, states], and
        expected moves from state to state, [states, states]."""
        betas = np.ones_like(alphas)
        ahead = self.emissions.T[part.tokens]
        ahead /= scales[:, None]
        back = np.ascontiguousarray(self.transitions.T)
        for first, last, before in reversed(list(part.steps())):
            ahead[first:last] *= betas[first:last]
            if before is not None:
                betas[before : before + last - first] = ahead[first:last] @ back
        later = part.active[0]
        pairs = alphas[part.previous].T @ ahead[later:]
        betas *= alphas
        return betas, self.transitions * pairs

    # --- answering -------------------------------------------------------------------------------

    def log_probabilities(self, sequences: Sequence[Ids]) -> list[Floats]:
        """See `LanguageModel`; the forward algorithm.

        Raises:
            DataError: a token id is outside of the vocabulary.
            TrainingError: the model was not fitted.
        """
        self._require_fitted()
        found: list[Floats] = [np.zeros(0)] * len(sequences)
        done = 0
        for batch in batches(sequences, AT_ONCE):
            part = SideBySide.of(batch, self.vocabulary)
            with np.errstate(divide="ignore"):  # without smoothing, tokens may be impossible
                logs = np.log(self._forward(part)[1])
            for i, one in zip(part.order, part.apart(logs), strict=True):
                found[done + i] = one
            done += len(batch)
        return found

    def most_likely_states(self, sequence: Ids) -> tuple[npt.NDArray[np.intp], float]:
        """The Viterbi path: int [length + 1] states, the last one says the end; and the natural log
        of the probability of path and tokens together."""
        self._require_fitted()
        with np.errstate(divide="ignore"):
            start, moves, says = map(np.log, (self.start, self.transitions, self.emissions))
        tokens = [*sequence, self.vocabulary]
        best = start + says[:, tokens[0]]
        came = np.zeros((len(tokens), self.states), np.intp)
        for t, token in enumerate(tokens[1:], start=1):
            through = best[:, None] + moves
            came[t] = through.argmax(axis=0)
            best = through.max(axis=0) + says[:, token]
        path = np.empty(len(tokens), np.intp)
        path[-1] = best.argmax()
        for t in range(len(tokens) - 1, 0, -1):
            path[t - 1] = came[t, path[t]]
        return path, float(best.max())

    def next_distribution(self, prefix: Sequence[int]) -> Floats:
        """See `LanguageModel`."""
        made: Floats = self._states_after(prefix) @ self.emissions
        return made

    def _states_after(self, prefix: Sequence[int]) -> Floats:
        """Probabilities of the states that say what comes after `prefix`: [states]."""
        self._require_fitted()
        now = self.start
        for token in prefix:
            now = now * self.emissions[:, token]
            now = now / now.sum() if now.sum() > 0 else np.full(self.states, 1 / self.states)
            now = now @ self.transitions
        return now

    def sample(self, length: int, *, seed: int, prefix: Sequence[int] = ()) -> list[int]:
        """See `LanguageModel`; the same seed draws the same tokens."""
        draw = np.random.default_rng(seed)
        said: list[int] = []
        now = self._states_after(prefix)
        for _ in range(length):
            state = _drawn(draw, now)
            token = _drawn(draw, self.emissions[state])
            if token == self.vocabulary:
                break
            said.append(token)
            now = self.transitions[state]
        return said

    @property
    def parameters(self) -> int:
        return self.start.size + self.transitions.size + self.emissions.size

    def _require_fitted(self) -> None:
        if not self.start.size:
            raise TrainingError("the hidden Markov model has learned nothing", fix="call fit first")

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        save_file(arrays, folder / "hmm.safetensors")
        write_json(folder / "hmm.json", {name: getattr(self, name) for name in _OPTIONS})

    @classmethod
    def load(cls, folder: Path) -> HiddenMarkov:
        from safetensors.numpy import load_file

        made = cls(**read_json(folder / "hmm.json"))
        for name, array in load_file(folder / "hmm.safetensors").items():
            setattr(made, name, array)
        return made


_ARRAYS = ("start", "transitions", "emissions")
_OPTIONS = ("vocabulary", "states", "iterations", "smoothing", "tolerance", "seed")


def _rows(weights: Floats, otherwise: Floats | None = None) -> Floats:
    """Each row divided by its sum; a row of nothing is as in `otherwise`."""
    sums = weights.sum(axis=1, keepdims=True)
    if otherwise is None:
        return weights / sums
    return np.where(sums > 0, weights / np.where(sums > 0, sums, 1), otherwise)


def _drawn(draw: np.random.Generator, probabilities: Floats) -> int:
    return int(draw.choice(len(probabilities), p=probabilities / probabilities.sum()))
