"""Rows under a token limit: refused, cut or left out, and always counted.

Knows encoded rows and their lengths; knows nothing of what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from fitune.data.encoded import Encoded
from fitune.data.rows import Row, Rows
from fitune.data.template import where
from fitune.errors import DataError

EncodeAll = Callable[[Sequence[Row]], Iterable[Encoded]]
"""Rows → what each becomes, in order."""


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
    together: EncodeAll | None = None,
) -> tuple[list[Encoded], list[int], list[str]]:
    """Encode rows under a token limit; nothing is cut or left out without being counted.

    Args:
        encode: e.g. ``template.encode``.
        max_length: tokens per row.
        too_long: `refuse`, `truncate` (the end of the row's last text is cut) or `drop`.
        what: the rows' name for messages, e.g. ``"training"``.
        drop_allowed: False for rows that must all be answered; `drop` then cuts as `truncate` does.
        together: the same as `encode` for many rows at once, where there is a faster way.

    Returns:
        the encoded rows, the indices of the rows they come from, and notes with counts.

    Raises:
        DataError: a row is too long and `too_long` is `refuse`, or a row's template alone fills
            the limit, or every row would be dropped.
    """
    each = together or (lambda some: map(encode, some))
    drops = too_long == "drop" and drop_allowed
    encoded: list[Encoded] = []
    kept: list[int] = []
    over: list[tuple[int, int]] = []
    for index, item in enumerate(each(rows)):
        if progress and index % 200 == 0:
            progress(f"tokens of {what} rows", index, len(rows))
        if len(item) > max_length:
            over.append((index, len(item)))
            if too_long == "refuse" or drops:
                continue
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
    action = "they were left out"
    if not drops:
        indices = [index for index, _ in over]
        cut = _cut_to_fit(
            each, [rows[i] for i in indices], [encoded[i] for i in indices], tokenizer, max_length
        )
        for index, item in zip(indices, cut, strict=True):
            encoded[index] = item
        action = f"{sum(item.cut for item in cut):,} tokens of their ends were cut"
    return encoded, kept, [f"{facts}; {action} (data.too_long: {too_long})."]


def _cut_to_fit(
    each: EncodeAll,
    rows: Sequence[Row],
    items: Sequence[Encoded],
    tokenizer: Any,
    max_length: int,
) -> list[Encoded]:
    """Rows that are all too long, with the end of their text cut off."""
    texts = tokenizer(
        [row.text for row in rows],
        add_special_tokens=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    keep = [len(ids) for ids in texts.input_ids]
    fitting = list(items)
    # Cutting may merge tokens at the seam, so it is repeated until each row fits.
    while over := [i for i, item in enumerate(fitting) if len(item) > max_length]:
        shorter = []
        for i in over:
            keep[i] -= max(1, len(fitting[i]) - max_length)
            if keep[i] < 0:
                raise DataError(
                    f"{where(rows[i])} does not fit into {max_length:,} tokens even with its text "
                    f"left out: the rest alone has {len(fitting[i]):,}",
                    fix="raise max_length, or shorten the instruction or the answers",
                )
            if tokenizer.is_fast:  # cut in the text itself: decoding may change it, halve a letter
                text = rows[i].text
                text = text[: texts.offset_mapping[i][keep[i] - 1][1]] if keep[i] else ""
            else:
                text = tokenizer.decode(texts.input_ids[i][: keep[i]], skip_special_tokens=False)
            shorter.append(replace(rows[i], text=text))
        for i, item in zip(over, each(shorter), strict=True):
            fitting[i] = item
    return [
        replace(item, cut=len(whole) - len(item))
        for item, whole in zip(fitting, items, strict=True)
    ]
