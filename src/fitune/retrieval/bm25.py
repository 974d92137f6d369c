"""Search by words: BM25 over a sparse matrix of scores.

Knows terms and counts; knows nothing of models or vectors.

score(q, d) = Σ over terms t of q: idf(t) · tf / (tf + k1 · (1 − b + b · |d| / mean |d|)) with
idf(t) = ln(1 + (N − df + 0.5) / (df + 0.5)): BM25 of Robertson and Zaragoza 2009 (section 3.4) as
Lucene computes it, without the factor k1 + 1 that changes no ranking (Kamphuis et al., ECIR 2020,
table 1). All of it but the sum is known when passages are indexed (Lù, arXiv:2407.03618), so that a
search adds up the columns of its terms.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError
from fitune.retrieval import Hit, check_k, check_passages
from fitune.retrieval.best import best
from fitune.retrieval.terms import stemmer, stop_words, terms
from fitune.runs import explain_damage, read_json, replaced_folder, write_json


class Bm25:
    """Lucene's BM25. A passage is found only if it has a term of the query.

    Args:
        k1: how slowly a term's further occurrences count less; 0 counts only whether it occurs.
        b: how much longer passages are held back: 0 not at all, 1 in proportion.
        stem: the language by whose rules words are cut to stems; None for whole words.
        stopwords: words that are passed over: a name in `terms.STOPWORDS`, or a list.

    Attributes:
        passages: how many there are.

    Raises:
        ConfigError: a value outside its limits, or a name that is not known.
        MissingExtraError: stemming without PyStemmer.
    """

    def __init__(
        self,
        *,
        k1: float = 1.5,
        b: float = 0.75,
        stem: str | None = None,
        stopwords: str | Sequence[str] = (),
    ) -> None:
        if not k1 >= 0:
            raise ConfigError(f"k1 is {k1}, and it is 0 or more", fix="set k1, e.g. to 1.5")
        if not 0 <= b <= 1:
            raise ConfigError(f"b is {b}, and it is from 0 to 1", fix="set b, e.g. to 0.75")
        self._k1, self._b, self._stem = float(k1), float(b), stem
        self._stopwords = stopwords if isinstance(stopwords, str) else tuple(stopwords)
        self._stops, self._stems = stop_words(stopwords), stemmer(stem)
        self.passages = 0
        self._columns: dict[str, int] = {}
        # The matrix of scores [passages, terms] by columns.
        self._scores = np.empty(0, dtype=np.float32)
        self._rows = np.empty(0, dtype=np.int32)
        self._starts = np.zeros(1, dtype=np.int64)

    def build(self, passages: Sequence[str]) -> None:
        check_passages(passages)
        words, ends, seen = _numbered(passages)
        column_of_word = self._column_of(list(seen))
        self._fill(column_of_word[words], np.diff(ends, prepend=0))

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        check_k(k)
        if not self.passages:
            raise ConfigError("nothing was built to search in", fix="call build with passages")
        return [self._search(query, k) for query in queries]

    def _search(self, query: str, k: int) -> list[Hit]:
        words = [word for word in terms(query) if word not in self._stops]
        scores = np.zeros(self.passages, dtype=np.float32)
        for term in self._stems(words):
            if (column := self._columns.get(term)) is not None:
                at = slice(self._starts[column], self._starts[column + 1])
                np.add.at(scores, self._rows[at], self._scores[at])
        matching = np.flatnonzero(scores)
        top = matching[best(scores[matching], k)]
        return [Hit(int(number), float(scores[number])) for number in top]

    @property
    def parameters(self) -> int:
        return 0

    @property
    def options(self) -> dict[str, Any]:
        """What to construct it with again, as JSON."""
        words = self._stopwords
        return {
            "k1": self._k1,
            "b": self._b,
            "stem": self._stem,
            "stopwords": words if isinstance(words, str) else list(words),
        }

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        with replaced_folder(folder) as partial:
            arrays = {"scores": self._scores, "rows": self._rows, "starts": self._starts}
            save_file(arrays, partial / "bm25.safetensors")
            about = {"options": self.options, "passages": self.passages}
            write_json(partial / "bm25.json", about | {"terms": list(self._columns)})

    @classmethod
    def load(cls, folder: Path) -> Bm25:
        from safetensors.numpy import load_file

        about = read_json(folder / "bm25.json")
        with explain_damage(folder):
            made = cls(**about["options"])
            made.passages = about["passages"]
            made._columns = {term: column for column, term in enumerate(about["terms"])}
            arrays = load_file(folder / "bm25.safetensors")
            made._scores, made._rows = arrays["scores"], arrays["rows"]
            made._starts = arrays["starts"]
        return made

    def _column_of(self, words: list[str]) -> npt.NDArray[np.int32]:
        """The column of each word: of its stem; -1 for stop words. Each word is stemmed once."""
        self._columns = {}
        columns = np.empty(len(words), dtype=np.int32)
        for number, (word, stem) in enumerate(zip(words, self._stems(words), strict=True)):
            stop = word in self._stops
            columns[number] = -1 if stop else self._columns.setdefault(stem, len(self._columns))
        return columns

    def _fill(self, columns: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]) -> None:
        """The matrix of scores from the column of every word, and how many words each passage
        has."""
        from scipy.sparse import coo_array

        count = len(lengths)
        rows = np.repeat(np.arange(count, dtype=np.int32), lengths)[columns >= 0]
        columns = columns[columns >= 0]
        lengths = np.bincount(rows, minlength=count)
        ones = np.ones(len(columns), dtype=np.float32)
        matrix = coo_array((ones, (rows, columns)), shape=(count, len(self._columns))).tocsc()
        frequency = np.diff(matrix.indptr)  # in how many passages a term occurs
        idf = np.log1p((count - frequency + 0.5) / (frequency + 0.5))
        mean = lengths.mean() or 1.0
        spared = self._k1 * (1 - self._b + self._b * lengths / mean)
        tf = matrix.data.astype(np.float64)
        scores = np.repeat(idf, frequency) * tf / (tf + spared[matrix.indices])
        self.passages = count
        self._scores = scores.astype(np.float32)
        self._rows = matrix.indices.astype(np.int32)
        self._starts = matrix.indptr.astype(np.int64)


def _numbered(
    passages: Sequence[str],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], dict[str, int]]:
    """The number of every word of all passages, end to end; where each passage ends among them; and
    the words in the order of their numbers."""
    seen: defaultdict[str, int] = defaultdict()
    seen.default_factory = seen.__len__  # the next number for each new word
    words, ends = array("i"), array("q")
    for passage in passages:
        words.extend(map(seen.__getitem__, terms(passage)))
        ends.append(len(words))
    return np.array(words, dtype=np.int32), np.array(ends, dtype=np.int64), dict(seen)
