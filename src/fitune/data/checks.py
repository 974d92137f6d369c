"""What may be wrong with rows, found before anything is trained on them.

Knows texts, answers and splits; knows nothing of tokens or models. Nothing is mended: each finding
names the rows, and the user decides.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from fitune.data.rows import Row, Rows, Splits

MAX_NAMED = 20
"""Rows named in one finding; the message has the count of all."""

SHINGLE = 5
"""Characters in a shingle: long enough that two English texts share few by chance."""

NEAR = 0.8
"""Jaccard similarity of shingles from which two texts are near copies."""

MAX_CHARACTERS = 5_000
"""Of a text that are compared: bounds time and memory on long documents."""

BANDS, BAND_ROWS = 16, 4
"""Two texts at similarity s become candidates with probability 1 − (1 − s⁴)¹⁶: 0.9998 at 0.8,
0.64 at 0.5. Candidates are then compared exactly."""

MAX_CANDIDATES = 50
"""Compared per row; texts made from one template would otherwise cost quadratic time."""

MUCH_LEAKED = 0.05
"""Share of test rows that are copies from which the score is an error, not a doubt: it can move
by five points, more than most approaches differ."""

FEW_ROWS = 8
"""Training rows of a label below which it is hardly learned."""


Level = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing.

    Attributes:
        level: `error` (the result would mean nothing), `warning` (look at it), `info`.
        check: the name in `CHECKS`.
        message: one sentence with counts and an example.
        rows: sources of the rows it is about, the first `MAX_NAMED`.
    """

    level: Level
    check: str
    message: str
    rows: tuple[str, ...] = ()


Check = Callable[[Splits, str], list[Finding]]
"""(splits, kind of task) → findings."""


def run_checks(splits: Splits, kind: str) -> list[Finding]:
    """Every check in `CHECKS`, in order; errors first, then warnings."""
    found = [finding for check in CHECKS.values() for finding in check(splits, kind)]
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.level))


# --- labels --------------------------------------------------------------------------------------


def balance(splits: Splits, kind: str) -> list[Finding]:
    """How evenly the training rows are spread over labels."""
    if kind != "classify" or not splits.train:
        return []
    counts = Counter(splits.train.answers)
    (most, largest), (least, smallest) = counts.most_common()[0], counts.most_common()[-1]
    found = [
        Finding(
            "info",
            "balance",
            f"{len(counts)} labels; the most frequent, {most!r}, has {largest:,} of "
            f"{len(splits.train):,} training rows ({largest / len(splits.train):.0%}), the least "
            f"frequent, {least!r}, {smallest:,}",
        )
    ]
    few = sorted(label for label, count in counts.items() if count < FEW_ROWS)
    if few:
        rows = [row for row in splits.train if row.answer in set(few)]
        found.append(
            _finding(
                "warning",
                "balance",
                f"{len(few)} labels have fewer than {FEW_ROWS} training rows ({_some(few)})",
                rows,
            )
        )
    if untested := sorted(set(counts) - set(splits.test.answers)):
        found.append(
            Finding(
                "info",
                "balance",
                f"{len(untested)} labels have no test row, so their quality stays unknown "
                f"({_some(untested)})",
            )
        )
    return found


def label_names(splits: Splits, kind: str) -> list[Finding]:
    """Labels that look like one label spelled in two ways."""
    if kind != "classify":
        return []
    counts = Counter(splits.train.answers + splits.validation.answers + splits.test.answers)
    pairs = _same_spelling(counts) + _misspelled(counts)
    rows = (*splits.train, *splits.validation, *splits.test)
    return [
        _finding(
            "warning",
            "label-names",
            f"the labels {often!r} ({counts[often]:,} rows) and {seldom!r} ({counts[seldom]:,}) "
            "look like one label spelled in two ways",
            [row for row in rows if row.answer == seldom],
        )
        for often, seldom in pairs
    ]


def _same_spelling(counts: Counter[str]) -> list[tuple[str, str]]:
    """Labels equal but for case, spaces, hyphens and underscores: (frequent, rare)."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        alike[re.sub(r"[\s_-]+", "", label.casefold()) or label].append(label)
    return [(first, other) for first, *others in alike.values() for other in others]


def _misspelled(counts: Counter[str]) -> list[tuple[str, str]]:
    """A rare label one letter away from one at least ten times as frequent. Labels that differ in
    a digit (`grade_1`, `grade_2`) are meant to."""
    from rapidfuzz.distance import Levenshtein

    pairs = []
    labels = [label for label, _ in counts.most_common() if len(label) >= 5]
    for i, seldom in enumerate(labels):
        for often in labels[:i]:
            if counts[often] < 10 * counts[seldom]:
                break  # sorted by count: the others are rarer still
            if Levenshtein.distance(often, seldom, score_cutoff=1) == 1:
                changed = Counter(often)
                changed.subtract(seldom)
                if all(letter.isalpha() for letter, count in changed.items() if count):
                    pairs.append((often, seldom))
    return pairs


def conflicts(splits: Splits, kind: str) -> list[Finding]:
    """One text (case, spaces and punctuation aside) with different labels."""
    if kind != "classify":
        return []
    alike: dict[str, list[Row]] = defaultdict(list)
    for rows in (splits.train, splits.validation, splits.test):
        for row in rows:
            alike[_plain(row)].append(row)
    mixed = [same for same in alike.values() if len({row.answer for row in same}) > 1]
    if not mixed:
        return []
    a = mixed[0][0]
    b = next(row for row in mixed[0] if row.answer != a.answer)
    return [
        _finding(
            "warning",
            "conflicts",
            f"texts with more than one label: {len(mixed):,} ({a.source} says {a.answer!r}, "
            f"{b.source} says {b.answer!r})",
            [row for same in mixed for row in same],
        )
    ]


# --- copies --------------------------------------------------------------------------------------


def leakage(splits: Splits, kind: str) -> list[Finding]:
    """Test rows that are copies or near copies of rows that the model learns from."""
    plain = {_plain(row): row for row in reversed(splits.train)}
    held = [*splits.test, *splits.validation]
    rest = [row for row in held if _plain(row) not in plain]
    near = {id(rest[i]): splits.train[j] for i, j, _ in near_copies(splits.train, rest)}
    found = []
    for name, rows in (("test", splits.test), ("validation", splits.validation)):
        exact = [(row, plain[_plain(row)]) for row in rows if _plain(row) in plain]
        close = [(row, near[id(row)]) for row in rows if id(row) in near]
        for what, pairs in (("", exact), ("nearly ", close)):
            if not pairs:
                continue
            share = len(pairs) / len(rows)
            level: Level = "error" if name == "test" and share >= MUCH_LEAKED else "warning"
            row, learned = pairs[0]
            message = (
                f"{len(pairs):,} of {len(rows):,} {name} rows ({share:.1%}) have {what}the same "
                f"words as a training row ({row.source} and {learned.source})"
            )
            found.append(_finding(level, "leakage", message, [row for row, _ in pairs]))
    return found


def near_copies(base: Sequence[Row], rows: Sequence[Row]) -> list[tuple[int, int, float]]:
    """For each of `rows` the first near copy found in `base`: (index in rows, index in base,
    Jaccard similarity ≥ `NEAR` of character shingles). Found by MinHash with banding (Broder,
    "On the resemblance and containment of documents", 1997), then compared exactly."""
    if not base or not rows:
        return []
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    learned = [_shingles(_plain(row)) for row in base]
    for j, shingles in enumerate(learned):
        for band in _bands(shingles):
            buckets[band].append(j)
    found = []
    for i, row in enumerate(rows):
        shingles = _shingles(_plain(row))
        candidates = dict.fromkeys(
            j for band in _bands(shingles) for j in islice(buckets.get(band, ()), MAX_CANDIDATES)
        )
        for j in islice(candidates, MAX_CANDIDATES):
            if (similarity := _jaccard(shingles, learned[j])) >= NEAR:
                found.append((i, j, similarity))
                break
    return found


_KEYS = np.random.default_rng(0).integers(1, 2**63, size=(2, BANDS * BAND_ROWS), dtype=np.uint64)
_POWERS = np.array([pow(1_000_003, k, 2**64) for k in range(SHINGLE)], dtype=np.uint64)


def _plain(row: Row) -> str:
    """What the user says, without case, punctuation and spacing. System prompts are left out:
    shared by all rows, they would make all rows alike."""
    said = " ".join(turn.text for turn in row.turns if turn.role != "system")
    return " ".join(re.findall(r"\w+", said.casefold())) or said.strip()


def _shingles(text: str) -> np.ndarray:
    """Sorted distinct hashes (uint64) of the text's runs of `SHINGLE` characters."""
    padded = text[:MAX_CHARACTERS].ljust(SHINGLE)
    codes = np.frombuffer(padded.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    return np.unique((windows * _POWERS).sum(axis=1, dtype=np.uint64))


def _bands(shingles: np.ndarray) -> list[tuple[int, bytes]]:
    mixed = shingles[:, None] * (_KEYS[0] | np.uint64(1)) + _KEYS[1]  # wraps at 2⁶⁴, as meant
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    least = mixed.min(axis=0).reshape(BANDS, BAND_ROWS)
    return [(band, row.tobytes()) for band, row in enumerate(least)]


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


# --- lengths -------------------------------------------------------------------------------------


def lengths(splits: Splits, kind: str) -> list[Finding]:
    """Words in texts (and answers, for generate), and whether test rows are like training rows."""
    found, medians = [], {}
    for name, rows in (("training", splits.train), ("test", splits.test)):
        if not rows:
            continue
        parts = [("texts", rows.texts)] + (
            [("answers", rows.answers)] if kind == "generate" else []
        )
        for part, texts in parts:
            words = np.array([len(text.split()) for text in texts])
            half, most, longest = np.percentile(words, [50, 95, 100]).astype(int)
            medians[name, part] = max(1, half)
            found.append(
                Finding(
                    "info",
                    "lengths",
                    f"{name} {part}: half have at most {half:,} words, 95 % at most {most:,}, the "
                    f"longest {longest:,} ({max(map(len, texts)):,} characters in the longest)",
                )
            )
    for part in ("texts", "answers"):
        train, test = medians.get(("training", part)), medians.get(("test", part))
        if train and test and not 0.5 <= test / train <= 2:
            found.append(
                Finding(
                    "warning",
                    "lengths",
                    f"test {part} are of another length than training {part} (median {test:,} "
                    f"words against {train:,}), so the test may not speak for the training",
                )
            )
    return found


def nearly_empty(splits: Splits, kind: str) -> list[Finding]:
    """Rows whose text has no letter and no digit, and answers that only repeat the text."""
    found = []
    for name, rows in _named(splits):
        if blank := [row for row in rows if not re.search(r"[^\W_]", row.text)]:
            found.append(
                _finding(
                    "warning",
                    "nearly-empty",
                    f"{len(blank):,} {name} rows have a text without a letter or digit "
                    f"({blank[0].source}: {blank[0].text.strip()[:20]!r})",
                    blank,
                )
            )
        copied = [row for row in rows if row.answer == row.text and kind == "generate"]
        if copied:
            found.append(
                _finding(
                    "warning",
                    "nearly-empty",
                    f"{len(copied):,} {name} rows have an answer that only repeats the text "
                    f"({copied[0].source})",
                    copied,
                )
            )
    return found


CHECKS: dict[str, Check] = {
    "balance": balance,
    "label-names": label_names,
    "conflicts": conflicts,
    "leakage": leakage,
    "lengths": lengths,
    "nearly-empty": nearly_empty,
}


def _named(splits: Splits) -> tuple[tuple[str, Rows], ...]:
    return (("training", splits.train), ("validation", splits.validation), ("test", splits.test))


def _finding(level: Level, check: str, message: str, rows: Sequence[Row]) -> Finding:
    return Finding(level, check, message, tuple(row.source for row in islice(rows, MAX_NAMED)))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
