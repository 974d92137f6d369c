"""Rows become training, validation and test rows, and no test row ever reaches training.

Knows rows, their hashes and labels; knows nothing of files or models. Where a row falls is decided
by the hash of its content, the seed and how many rows its label has: never by the order of a file.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from fitune.config import RowCaps
from fitune.data.rows import Row, Rows, Splits
from fitune.errors import ConfigError, DataError

MAX_CARVED_VALIDATION = 500
"""Validation rows choose between checkpoints of one run: 500 tell 0.90 from 0.94 (standard error
1.1 points at 0.93), and more would take rows from training and time from every evaluation."""


def split_rows(
    train: Rows,
    validation: Rows | None = None,
    test: Rows | None = None,
    *,
    kind: str,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    max_rows: RowCaps | None = None,
) -> Splits:
    """Make three disjoint sets of rows.

    Exact duplicates leave the training rows first. A test set that is not given is carved from
    them, then a validation set (at most `MAX_CARVED_VALIDATION` rows), each stratified by answer
    for `classify`: a label's share is its quota rounded down or up. Labels with fewer rows than
    there are splits stay in training. Rows whose key (what the model is given) is in test leave
    training and validation; those whose key is in validation leave training. Caps come last.

    Args:
        train, validation, test: as read; None is carved from `train`.
        kind: `classify` stratifies and checks labels.
        validation_fraction: of the training rows left once test is set apart.
        test_fraction: of all rows.
        seed: another seed gives another split.
        max_rows: the most rows of each split.

    Raises:
        DataError: a split is empty, there is one label only, or a label is never seen in training.
        ConfigError: a cap on training rows is below the number of labels.
    """
    notes: list[str] = []
    classify = kind == "classify"
    pool = _distinct(train, notes)
    splits = 1 + (test is None) + (validation is None)
    fixed = _stay_in_training(pool, splits, notes) if classify else frozenset()

    if test is None:
        test, pool = _carve(pool, test_fraction, classify, seed, "test", splits, fixed)
    else:
        pool = _without(pool, test, "training", "test", notes)
    if validation is None:
        fraction = validation_fraction
        if fraction * len(pool) > MAX_CARVED_VALIDATION:
            fraction = MAX_CARVED_VALIDATION / len(pool)
            notes.append(
                f"{MAX_CARVED_VALIDATION:,} rows are kept for validation, not "
                f"{validation_fraction:.0%} of {len(pool):,}: more would be missed in training."
            )
        validation, pool = _carve(pool, fraction, classify, seed, "validation", 2, fixed)
    else:
        validation = _without(validation, test, "validation", "test", notes)
        pool = _without(pool, validation, "training", "validation", notes)

    _refuse_empty(pool, validation, test)
    if classify:
        _refuse_labels(pool, validation, test)
    caps = max_rows or RowCaps()
    return Splits(
        train=_cap(pool, caps.train, "train", classify, seed, notes),
        validation=_cap(validation, caps.validation, "validation", classify, seed, notes),
        test=_cap(test, caps.test, "test", classify, seed, notes),
        notes=tuple(notes),
    )


def quotas(sizes: Mapping[str, int], total: int, minimum: int = 0) -> dict[str, int]:
    """Share `total` among groups in proportion to their sizes, each share rounded down or up
    (largest remainder; Hamilton's method); ties are broken by the group's name.

    Args:
        sizes: rows in each group.
        total: at most the sum of sizes, at least ``minimum * len(sizes)``.
        minimum: every group gets at least this (and never more than it has).
    """
    everything = sum(sizes.values())
    share = {name: total * size / everything for name, size in sizes.items()}
    given = {n: min(size, max(minimum, total * size // everything)) for n, size in sizes.items()}
    left = total - sum(given.values())
    step = 1 if left > 0 else -1
    heap = [(step * (given[name] - share[name]), _hash(name), name) for name in sizes]
    heapq.heapify(heap)
    while left and heap:
        _, tie, name = heapq.heappop(heap)
        if not minimum <= given[name] + step <= sizes[name]:
            continue
        given[name] += step
        left -= step
        heapq.heappush(heap, (step * (given[name] - share[name]), tie, name))
    return given


# --- carving and capping -------------------------------------------------------------------------


def _carve(
    rows: Rows,
    fraction: float,
    classify: bool,
    seed: int,
    name: str,
    splits: int,
    fixed: frozenset[str],
) -> tuple[Rows, Rows]:
    """(the carved rows, the rest). Rows with one key stay together.

    Args:
        splits: how many splits `rows` still make, the rest included: each label keeps a row for
            every other one.
        fixed: keys that stay in the rest.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key, row in {row.key: row for row in rows}.items():
        if key not in fixed:
            groups[(row.answer or "") if classify else ""].append(key)
    sizes = {label: len(keys) for label, keys in groups.items()}
    everything = sum(sizes.values())
    total = max(int(fraction > 0), _round(fraction * everything))
    total = max(0, min(total, everything - (splits - 1) * len(sizes)))
    share = quotas(sizes, total) if sizes else {}
    rank = _rank(seed, name)
    chosen: set[str] = set()
    for label, keys in groups.items():
        room = max(0, len(keys) - (splits - 1))
        chosen.update(sorted(keys, key=rank)[: min(share[label], room)])
    return (
        Rows(tuple(row for row in rows if row.key in chosen)),
        Rows(tuple(row for row in rows if row.key not in chosen)),
    )


def _cap(
    rows: Rows, most: int | None, name: str, classify: bool, seed: int, notes: list[str]
) -> Rows:
    if most is None or len(rows) <= most:
        return rows
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[(row.answer or "") if classify else ""].append(index)
    # Training must keep every label, or test rows of a lost one could never be answered.
    minimum = 1 if classify and name == "train" else 0
    if minimum * len(groups) > most:
        raise ConfigError(
            f"data.max_rows.train is {most} and there are {len(groups)} labels",
            fix=f"raise it to {len(groups)} at least",
        )
    share = quotas({label: len(group) for label, group in groups.items()}, most, minimum)
    rank = _rank(seed, "cap")
    kept: set[int] = set()
    for label, group in groups.items():
        group.sort(key=lambda index: (rank(rows[index].key), rows[index].content_hash))
        kept.update(group[: share[label]])
    noun = "training" if name == "train" else name
    notes.append(f"using {most:,} of {len(rows):,} {noun} rows (data.max_rows.{name})")
    return Rows(tuple(row for index, row in enumerate(rows) if index in kept))


def _rank(seed: int, purpose: str) -> Callable[[str], str]:
    return lambda key: _hash(f"{seed}/{purpose}/{key}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _round(number: float) -> int:
    return int(number + 0.5)  # halves go up; round() would send them to the even neighbour


# --- leaving out, and saying so ------------------------------------------------------------------


def _distinct(rows: Rows, notes: list[str]) -> Rows:
    first: dict[str, Row] = {}
    again: list[Row] = []
    for row in rows:
        if row.content_hash in first:
            again.append(row)
        else:
            first[row.content_hash] = row
    if again:
        example = first[again[0].content_hash].source
        notes.append(
            f"{_count(len(again), 'exact duplicate')} left out of the training rows "
            f"({again[0].source} repeats {example})"
        )
    return Rows(tuple(first.values()))


def _without(rows: Rows, others: Rows, name: str, other: str, notes: list[str]) -> Rows:
    keys = {row.key: row for row in others}
    leaks = [row for row in rows if row.key in keys]
    if leaks:
        first = leaks[0]
        notes.append(
            f"{_count(len(leaks), f'{name} row')} left out because the same text is in {other} "
            f"({first.source} is {keys[first.key].source})"
        )
    return Rows(tuple(row for row in rows if row.key not in keys))


def _stay_in_training(rows: Rows, splits: int, notes: list[str]) -> frozenset[str]:
    """Keys that are never carved: texts with several labels, which no prediction could answer,
    and texts of labels with fewer rows than there are splits."""
    by_key: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_key[row.key].append(row)
    conflicts = {key: same for key, same in by_key.items() if len(same) > 1}
    if conflicts:
        a, b = next(iter(conflicts.values()))[:2]
        notes.append(
            f"{_count(len(conflicts), 'training text')} with more than one label "
            f"({a.source} says {a.answer!r}, {b.source} says {b.answer!r})"
        )
    if splits == 1:
        return frozenset(conflicts)
    sizes = Counter(same[0].answer or "" for key, same in by_key.items() if key not in conflicts)
    rare = {label for label in rows.labels if sizes[label] < splits}
    if len(rare) == len(rows.labels):
        raise DataError(
            f"no label has the {splits} different rows that as many splits need "
            f"({_count(len(rows.labels), 'label')} in {_count(len(rows), 'row')})",
            fix="add rows, check data.output, or set kind: generate if the answers are free text",
        )
    if rare:
        notes.append(
            f"{_count(len(rare), 'label')} with fewer than {splits} rows in training only "
            f"({_some(sorted(rare))})"
        )
    return frozenset(
        key for key, same in by_key.items() if key in conflicts or same[0].answer in rare
    )


def _refuse_empty(train: Rows, validation: Rows, test: Rows) -> None:
    for name, rows, fix in (
        ("training", train, "give more rows, or carve smaller fractions from them"),
        (
            "validation",
            validation,
            "give data.validation, more training rows, or a larger data.validation_fraction",
        ),
        ("test", test, "give data.test, more training rows, or a larger data.test_fraction"),
    ):
        if not rows:
            raise DataError(f"no {name} rows are left", fix=fix)


def _refuse_labels(train: Rows, validation: Rows, test: Rows) -> None:
    if len(train.labels) < 2:
        only = train.labels[0] if train.labels else ""
        raise DataError(
            f"every training row has the label {only!r}, and classify needs at least two labels",
            fix="add rows of another label, or check data.output",
        )
    known = set(train.labels)
    for name, rows in (("test", test), ("validation", validation)):
        strange = Counter(row.answer or "" for row in rows if row.answer not in known)
        if strange:
            sources = [row.source for row in rows if row.answer not in known]
            raise DataError(
                f"{_count(len(strange), 'label')} of the {name} rows never seen in training: "
                f"{_some(strange)} ({_some(sources, quote=False)})",
                fix=f"add training rows with them, or remove these {sum(strange.values())} rows",
            )


def _some(names: Iterable[str], quote: bool = True) -> str:
    names = list(names)
    shown = ", ".join((repr(name) if quote else name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
