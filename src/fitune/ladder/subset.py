"""Fewer rows, chosen by what they say: of a split, and of a part of it.

Knows rows and their hashes; knows nothing of what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence

from fitune.data.rows import Rows
from fitune.data.splits import quotas


def capped(rows: Rows, most: int) -> Rows:
    """`most` rows by content hash, kept in order; each label keeps its share, and at least one."""
    by_label: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_label.setdefault(row.answer or "", []).append(index)
    if len(by_label) > most:  # free answers: no shares to keep
        by_label = {"": list(range(len(rows)))}
    share = quotas({label: len(members) for label, members in by_label.items()}, most, minimum=1)
    kept: list[int] = []
    for label, members in by_label.items():
        members.sort(key=lambda i: rows[i].content_hash)
        kept += members[: share[label]]
    return Rows(tuple(rows[i] for i in sorted(kept)))


def nested(rows: Rows, sizes: Sequence[int]) -> list[Rows]:
    """Parts of `rows` of those sizes, each within the next larger one.

    Each is cut from the one above it: shares of labels, rounded for every size on its own, would
    not always be nested.

    Args:
        sizes: ascending, none above the number of rows.
    """
    parts: list[Rows] = []
    for size in reversed(sizes):
        rows = capped(rows, size) if size < len(rows) else rows
        parts.append(rows)
    return parts[::-1]
