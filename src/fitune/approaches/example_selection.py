"""Which training rows are shown as examples, and in which order.

Knows rows, vectors and numbers; knows nothing of models, prompts or retrievers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fitune.data.rows import Row, Rows

ORDERS = ("similar-last", "similar-first", "random", "label")

PATIENCE = 10
"""How many rows in a row, a wanted one, may not fit before no more are tried: nothing shorter is
likely to come."""


def worth_showing(rows: Rows) -> Rows:
    """Rows with a text and an answer, each pair once: what differs in case and white space only
    says the same twice. The first stays; contradictory answers to one text all stay."""
    seen: dict[tuple[str, str], Row] = {}
    for row in rows:
        text = " ".join(" ".join(turn.text for turn in row.turns).casefold().split())
        if text and (row.answer or "").strip():
            seen.setdefault((text, row.answer or ""), row)
    return Rows(tuple(seen.values()))


def balanced(rows: Rows, *, seed: int, balance: bool) -> list[Row]:
    """Rows in the order in which they are taken as examples: a round over labels, then another.

    Rows are visited by content hash order shuffled with `seed`, so file order has no influence.
    """
    ordered = sorted(rows, key=lambda row: row.content_hash)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    if not balance:
        return shuffled
    seen: dict[str, int] = {}
    rounds: list[tuple[int, int, Row]] = []
    for position, row in enumerate(shuffled):
        turn = seen.get(row.answer or "", 0)
        seen[row.answer or ""] = turn + 1
        rounds.append((turn, position, row))
    return [row for _, _, row in sorted(rounds, key=lambda item: item[:2])]


def diverse(rows: Rows, vectors: npt.NDArray[np.float32], k: int, *, seed: int) -> list[Row]:
    """Rows in the order in which they are taken: the most typical of each of `k` groups, then the
    next of each; larger groups first.

    Groups are those of k-means over the rows' vectors, as in Auto-CoT (Zhang et al.,
    arXiv:2210.03493, section 4). The most distant rows of all, which other ways of spreading take,
    are those that say nothing typical.

    Args:
        vectors: ``[rows, dimension]``.
    """
    from sklearn.cluster import KMeans

    order = sorted(range(len(rows)), key=lambda i: rows[i].content_hash)
    by_hash = vectors[order]
    groups = KMeans(min(k, len(rows)), n_init=4, random_state=seed).fit(by_hash)
    distance = np.linalg.norm(by_hash - groups.cluster_centers_[groups.labels_], axis=1)
    sizes = np.bincount(groups.labels_)
    turns = np.zeros(len(rows), dtype=np.int64)
    for group in range(len(sizes)):
        members = np.flatnonzero(groups.labels_ == group)
        turns[members[np.argsort(distance[members], kind="stable")]] = np.arange(len(members))
    ranked = np.lexsort((groups.labels_, -sizes[groups.labels_], turns))
    return [rows[order[i]] for i in ranked]


def fitting(ranked: Sequence[Row], wanted: int, fits: Callable[[Sequence[Row]], bool]) -> list[Row]:
    """The first `wanted` of `ranked` that fit together; those that do not are passed over."""
    if fits(ranked[:wanted]):  # nearly always, and then asked once
        return list(ranked[:wanted])
    chosen: list[Row] = []
    passed = 0
    for row in ranked:
        if len(chosen) == wanted or passed > PATIENCE * wanted:
            break
        if fits([*chosen, row]):
            chosen.append(row)
        else:
            passed += 1
    return chosen


def arranged(rows: Sequence[Row], order: str, *, seed: int, key: str = "") -> list[Row]:
    """Examples in the order in which they are shown.

    Args:
        rows: the most similar to the question first.
        order: one of `ORDERS`. Models lean towards what they read last (Zhao et al.,
            arXiv:2102.09690, section 4), so `similar-last` puts the most telling row there.
        key: of the question, in hexadecimal: random orders of different questions differ.
    """
    if order == "similar-first":
        return list(rows)
    backwards = list(reversed(rows))
    if order == "similar-last":
        return backwards
    if order == "label":
        return sorted(backwards, key=lambda row: row.answer or "")
    generator = np.random.default_rng([seed, int(key or "0", 16)])
    return [rows[i] for i in generator.permutation(len(rows))]
