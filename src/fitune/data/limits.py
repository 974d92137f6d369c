"""Rows under a token limit: refused, cut or left out, and always counted.

Knows encoded rows and their lengths; knows nothing of what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fitune.data.rows import Row, Rows
from fitune.data.template import Encoded, where
from fitune.errors import DataError


def encode_rows(
    encode: Callable[[Row], Encoded],
    rows: Rows,
    *,
    tokenizer: Any,
    max_length: int,
    too_long: str,
    what: str,
    drop_allowed: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Encoded], list[int], list[str]]:
    """Encode rows under a token limit; nothing is cut or left out without being counted.

    Args:
        encode: e.g. ``template.encode``.
        max_length: tokens per row.
        too_long: `refuse`, `truncate` (the end of the row's last text is cut) or `drop`.
        what: the rows' name for messages, e.g. ``"training"``.
        drop_allowed: False for rows that must all be answered; `drop` then cuts as `truncate` does.

    Returns:
        the encoded rows, the indices of the rows they come from, and notes with counts.

    Raises:
        DataError: a row is too long and `too_long` is `refuse`, or a row's template alone fills
            the limit, or every row would be dropped.
    """
    encoded: list[Encoded] = []
    kept: list[int] = []
    over: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        if progress and index % 200 == 0:
            progress(f"tokens of {what} rows", index, len(rows))
        item = encode(row)
        if len(item) > max_length:
            over.append((index, len(item)))
            if too_long == "refuse":
                continue
            if too_long == "drop" and drop_allowed:
                continue
            item = _cut_to_fit(encode, row, item, tokenizer, max_length)
        encoded.append(item)
        kept.append(index)
    if progress:
        progress(f"tokens of {what} rows", len(rows), len(rows))
    if not over:
        return encoded, kept, []
    longest = max(over, key=lambda pair: pair[1])
    facts = (
        f"{len(over):,} of {len(rows):,} {what} rows are longer than {max_length:,} tokens "
        f"(the longest, {where(rows[longest[0]])}, has {longest[1]:,})"
    )
    if too_long == "refuse":
        raise DataError(
            facts,
            fix="set data.too_long to truncate or drop, or raise max_length where the model can",
        )
    if not encoded:
        raise DataError(f"{facts}, so none is left", fix="set data.too_long: truncate")
    dropped = too_long == "drop" and drop_allowed
    lost = sum(item.cut for item in encoded)
    action = "they were left out" if dropped else f"{lost:,} tokens of their ends were cut"
    return encoded, kept, [f"{facts}; {action} (data.too_long: {too_long})."]


def _cut_to_fit(
    encode: Callable[[Row], Encoded], row: Row, item: Encoded, tokenizer: Any, max_length: int
) -> Encoded:
    full = len(item)
    encoding = tokenizer(
        row.text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast
    )
    keep = len(encoding.input_ids)
    while len(item) > max_length:
        # Cutting may merge tokens at the seam, so it is repeated until the row fits.
        keep -= max(1, len(item) - max_length)
        if keep < 0:
            raise DataError(
                f"{where(row)} does not fit into {max_length:,} tokens even with its text left "
                f"out: the rest alone has {len(item):,}",
                fix="raise max_length, or shorten the instruction or the answers",
            )
        if tokenizer.is_fast:  # cut in the text itself: decoding may change it or halve a letter
            text = row.text[: encoding.offset_mapping[keep - 1][1]] if keep else ""
        else:
            text = tokenizer.decode(encoding.input_ids[:keep], skip_special_tokens=False)
        item = encode(replace(row, text=text))
    return replace(item, cut=full - len(item))
