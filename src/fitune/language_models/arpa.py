"""N-gram models in the ARPA format, which SRILM, KenLM and others read and write.

Knows the format and an n-gram model's tables; knows nothing of counts or smoothing.

The format holds base-10 logs as text. The begin is written `<s>` and the end `</s>`; white space
and backslashes inside tokens, as vocabularies of characters have them, are written `\\u0020`.

Doug Paul's format as documented with SRILM (ngram-format(5)).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError, DataError
from fitune.language_models.ngram import Level, NGram
from fitune.language_models.ngram_counts import Keys, begin_of, width_of
from fitune.runs import explain_os_errors

BEGIN, END = "<s>", "</s>"
NEVER = -99.0
"""What the format writes for the log of zero."""

_ESCAPED = re.compile(r"[\s\\\x00]")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def write_arpa(model: NGram, tokens: Sequence[str], path: Path) -> None:
    """Write a fitted model.

    Args:
        tokens: of the vocabulary, each in its place.

    Raises:
        ConfigError: the vocabulary is not the model's.
        DataError: two tokens are written alike, or as a mark of the format.
        ResourceError: the machine refuses.
    """
    if len(tokens) != model.vocabulary or not model.levels:
        raise ConfigError(
            f"the vocabulary has {len(tokens):,} tokens and the model {model.vocabulary:,}",
            fix="give a fitted model and the vocabulary that it was fitted with",
        )
    words = [
        *(_ESCAPED.sub(lambda m: f"\\u{ord(m[0]):04x}", token) for token in tokens),
        END,
        BEGIN,
    ]
    if len(set(words)) < len(words):
        raise DataError(
            f"a token of the vocabulary is '{BEGIN}' or '{END}', or is there twice",
            fix="build the vocabulary without it",
        )
    with explain_os_errors(path), path.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        for n, level in enumerate(model.levels, start=1):
            file.write(f"ngram {n}={len(level.keys)}\n")
        for n, (level, grams) in enumerate(_grams(model, words), start=1):
            file.write(f"\n\\{n}-grams:\n")
            logs = np.maximum(level.log_probabilities / math.log(10), NEVER)
            weights = level.log_backoffs / math.log(10)
            ends = [f"\t{weight:.9g}" for weight in weights.tolist()] or [""] * len(grams)
            for gram, log, end in zip(grams, logs.tolist(), ends, strict=True):
                file.write(f"{log:.9g}\t{gram}{end}\n")
        file.write("\n\\end\\\n")


def _grams(model: NGram, words: list[str]) -> Iterator[tuple[Level, list[str]]]:
    width = width_of(model.vocabulary)
    below = words
    yield model.levels[0], below
    for level in model.levels[1:]:
        contexts, lasts = np.divmod(level.keys, width)
        below = [
            f"{below[context]} {words[last]}"
            for context, last in zip(contexts.tolist(), lasts.tolist(), strict=True)
        ]
        yield level, below


def read_arpa(path: Path) -> tuple[NGram, tuple[str, ...]]:
    """The model in a file, and its tokens.

    Raises:
        DataError: missing, not ARPA, or an n-gram's context is not in the file.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}", fix="name an ARPA file")
    try:
        with path.open(encoding="utf-8") as file:
            sections = list(_sections(file, path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error})", fix="write it as UTF-8, readable by you"
        ) from None
    words = [gram[0] for gram, _, _ in sections[0]]
    for mark in (BEGIN, END):
        if mark not in words:
            raise DataError(f"{path} has no {mark} among its 1-grams", fix="write it with marks")
    kept = [word for word in words if word not in (BEGIN, END)]
    places = {word: place for place, word in enumerate([*kept, END, BEGIN])}
    model = NGram(len(kept), order=len(sections))
    model.levels = tuple(_levels(sections, places, len(kept), path))
    tokens = tuple(_ESCAPE.sub(lambda m: chr(int(m[1], 16)), word) for word in kept)
    return model, tokens


Line = tuple[list[str], float, float]
"""(words, log10 probability, log10 back-off weight)."""


def _sections(file: Iterator[str], path: Path) -> Iterator[list[Line]]:
    """The n-grams of each order."""
    order, found = 0, False
    lines: list[Line] = []
    for number, line in enumerate(file, start=1):
        text = line.rstrip("\n")
        if text.startswith("\\") and text.endswith(("-grams:", "\\end\\")):
            if order:
                yield lines
            if text == "\\end\\":
                found = True
                break
            order, lines = order + 1, []
            if text != f"\\{order}-grams:":
                raise _broken(path, number, f"'{text}' where \\{order}-grams: should be")
        elif order and text.strip():
            fields = text.split()
            try:
                words = fields[1 : order + 1]
                backoff = float(fields[order + 1]) if len(fields) > order + 1 else 0.0
                lines.append((words, float(fields[0]), backoff))
                if len(words) < order:
                    raise ValueError
            except (ValueError, IndexError):
                raise _broken(path, number, f"'{text[:40]}' is no {order}-gram") from None
    if not found:
        raise _broken(path, 0, "there is no \\end\\")


def _levels(
    sections: list[list[Line]], places: dict[str, int], vocabulary: int, path: Path
) -> Iterator[Level]:
    width = width_of(vocabulary)
    below: list[Keys] = []
    for order, lines in enumerate(sections, start=1):
        try:
            ids = np.array([[places[word] for word in words] for words, _, _ in lines], np.int64)
        except KeyError as error:
            raise DataError(
                f"{path} has the token {error.args[0]!r} in {order}-grams and not in 1-grams",
                fix="write the file again",
            ) from None
        keys = _keys(ids.reshape(-1, order), below, width, path)
        by_key = np.argsort(keys, kind="stable")
        below.append(keys[by_key])
        if (np.diff(below[-1]) == 0).any():
            raise DataError(f"{path} has an {order}-gram twice", fix="write the file again")
        logs = np.array([log for _, log, _ in lines])[by_key]
        backoffs = np.array([backoff for _, _, backoff in lines])[by_key]
        if order == 1:
            logs[begin_of(vocabulary)] = -math.inf
        backoffs = backoffs if order < len(sections) else np.zeros(0)
        yield Level(below[-1], logs * math.log(10), backoffs * math.log(10))


def _keys(ids: npt.NDArray[np.int64], below: list[Keys], width: int, path: Path) -> Keys:
    """Of n-grams int64 [n-grams, order], given those of the lower orders."""
    keys = ids[:, 0]
    for n in range(1, ids.shape[1]):
        places = np.minimum(np.searchsorted(below[n - 1], keys), len(below[n - 1]) - 1)
        if not (below[n - 1][places] == keys).all():
            raise DataError(
                f"{path} has a {ids.shape[1]}-gram whose first {n} tokens are no {n}-gram of it",
                fix="write the file again, with the contexts of all n-grams",
            )
        keys = places * width + ids[:, n]
    return keys


def _broken(path: Path, number: int, why: str) -> DataError:
    where = f"{path}:{number}" if number else str(path)
    return DataError(f"{where} is not ARPA: {why}", fix="write the file again")
