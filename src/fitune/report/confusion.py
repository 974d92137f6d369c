"""What was taken for what: the confusion matrix, its most confused pairs, and figures by label.

Knows labels; knows nothing of HTML.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

FULL = 30
"""Up to so many labels, every cell is a number in a table; beyond, the matrix is a picture."""

PAIRS = 12


@dataclass(frozen=True)
class Pair:
    """So many rows of `true`, which has `of` rows, were answered `said`."""

    true: str
    said: str
    count: int
    of: int


@dataclass(frozen=True)
class LabelFigures:
    """How one label fared; precision, recall and F1 are 0 where they are not defined."""

    label: str
    rows: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Cell:
    """A non-empty cell of the matrix; `shade` is the square root of its share of the row, 0 … 1,
    so that rare mistakes stay visible beside the diagonal."""

    row: int
    column: int
    count: int
    shade: float


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of one rung: rows are true labels, columns what was said."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]
    figures: tuple[LabelFigures, ...]

    @property
    def full(self) -> bool:
        return len(self.labels) <= FULL

    @property
    def grid(self) -> list[list[Cell | None]]:
        """All cells by row and column, None where no row fell."""
        size = len(self.labels)
        made: list[list[Cell | None]] = [[None] * size for _ in range(size)]
        for cell in self.cells:
            made[cell.row][cell.column] = cell
        return made


def confusion(references: Sequence[str], predictions: Sequence[str]) -> Confusion:
    """Count every pair of true and said label; labels that occur in neither are left out."""
    labels = tuple(sorted({*references, *predictions}))
    place = {label: i for i, label in enumerate(labels)}
    counts = Counter(zip(references, predictions, strict=True))
    true, said = Counter(references), Counter(predictions)
    cells = tuple(
        Cell(place[t], place[s], n, round(math.sqrt(n / true[t]), 3))
        for (t, s), n in sorted(counts.items())
    )
    wrong = sorted(
        (Pair(t, s, n, true[t]) for (t, s), n in counts.items() if t != s),
        key=lambda pair: (-pair.count, -pair.count / pair.of, pair.true, pair.said),
    )
    figures = []
    for label in labels:
        right = counts[label, label]
        figures.append(
            LabelFigures(
                label,
                true[label],
                right / said[label] if said[label] else 0.0,
                right / true[label] if true[label] else 0.0,
                2 * right / (true[label] + said[label]),
            )
        )
    figures.sort(key=lambda f: (f.f1, f.label))
    return Confusion(labels, cells, tuple(wrong[:PAIRS]), tuple(figures))
