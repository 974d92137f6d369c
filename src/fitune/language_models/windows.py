"""Sequences that are longer than what a model reads at once, and drawing token after token.

Knows token ids and how far a model looks back; knows nothing of models.

A long sequence is read through windows that begin half a context apart. Each token's probability is
taken from the first window that reaches it: it is given at least half a context of those before it,
whatever stands after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fitune.language_models import Floats, Ids
from fitune.language_models.neural import alike

Judge = Callable[[torch.Tensor, torch.Tensor], Floats]
"""What is read, ``[rows, tokens]`` int64, and what is to be said, −1 where nothing is → the natural
logs of the probabilities of all that is to be said, row by row."""


def score_in_windows(
    sequences: Sequence[Ids], judge: Judge, *, start: int, end: int, context: int, at_once: int
) -> list[Floats]:
    """Natural logs, one for each token and one for the end: ``[tokens + 1]`` each.

    Args:
        start: the id that stands before the first token.
        end: the id that stands after the last.
        context: tokens that the model reads at once.
        at_once: tokens of one call of `judge`, padding included.
    """
    found = [np.empty(len(sequence) + 1) for sequence in sequences]
    places = [
        (row, begin, stop)
        for row, sequence in enumerate(sequences)
        for begin, stop in windows(len(sequence) + 1, context)
    ]
    lengths = np.asarray([stop - begin for _, begin, stop in places], dtype=np.int64)
    for group in alike(lengths, max(context, at_once), span=context):
        read = [places[index] for index in group]
        width = max(stop - begin for _, begin, stop in read)
        ids = np.full((len(read), width), end, dtype=np.int64)
        targets = np.full((len(read), width), -1, dtype=np.int64)
        for at, (row, begin, stop) in enumerate(read):
            whole = framed(sequences[row], start, end)
            new = _first_new(begin, context)
            ids[at, : stop - begin] = whole[begin:stop]
            targets[at, new : stop - begin] = whole[begin + new + 1 : stop + 1]
        log_probs = judge(torch.from_numpy(ids), torch.from_numpy(targets))
        cuts = (targets >= 0).sum(axis=1).cumsum()[:-1]
        for (row, _, stop), said in zip(read, np.split(log_probs, cuts), strict=True):
            found[row][stop - len(said) : stop] = said
    return found


def last_window(read: int, context: int) -> int:
    """Where the window begins from which the token after `read` tokens is predicted."""
    return windows(read, context)[-1][0]


def windows(read: int, context: int) -> list[tuple[int, int]]:
    """Where the windows over `read` tokens begin and end."""
    half = max(1, context // 2)
    later = range(half, read - context + half, half) if read > context else ()
    return [(begin, min(begin + context, read)) for begin in (0, *later)]


def framed(sequence: Ids, start: int, end: int) -> Ids:
    """The start's id, the tokens, the end's id."""
    return np.concatenate([[start], sequence, [end]]).astype(np.int64)


def drawn(
    next_distribution: Callable[[Sequence[int]], Floats],
    length: int,
    *,
    seed: int,
    prefix: Sequence[int],
) -> list[int]:
    """Up to `length` tokens after `prefix`; fewer where the sequence ends, whose id is the last."""
    random = np.random.default_rng(seed)
    written: list[int] = []
    while len(written) < length:
        probabilities = next_distribution([*prefix, *written])
        token = int(random.choice(len(probabilities), p=probabilities))
        if token == len(probabilities) - 1:
            break
        written.append(token)
    return written


def _first_new(begin: int, context: int) -> int:
    """Which token of a window is the first that no window before it has predicted."""
    return 0 if begin == 0 else context - max(1, context // 2)
