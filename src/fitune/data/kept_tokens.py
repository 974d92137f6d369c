"""Encoded rows, kept between runs under a name that says what they were made of.

A second start on the same rows reads their tokens instead of making them. What is kept is a
function of its name: of the rows, the template, the tokenizer, their libraries' versions and this
room's own code, so that a changed one finds nothing, and nothing ever has to be declared stale.
Bounded: what was used longest ago makes room. Whatever goes wrong with a file costs its time only.

Knows encoded rows and files; knows nothing of what tokens mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fitune.data.encoded import Encoded, Reason
from fitune.data.rows import Row, Rows
from fitune.sizes import MIB

ROOM = 512 * MIB
"""Of all files together."""

BYTES = 5
"""Kept for a token."""

LEAST = 20_000
"""Tokens; fewer are made in less time than it takes to name what they are made of."""

ABANDONED = 3600
"""Seconds after which no process writes to a file any more."""

REASONS = tuple(Reason)

DAMAGE = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy raises that is given another file than it wrote, or a part of one."""


def kept(
    folder: Path, maker: str | None, rows: Sequence[Row], make: Callable[..., Iterable[Encoded]]
) -> Iterator[Encoded]:
    """What `make` makes of `rows`: as kept in `folder`, or made now and kept.

    Args:
        maker: identifies the function `make`; None: nothing is kept.

    Raises: as `make`.
    """
    if maker is None:
        yield from make(rows)
        return
    file = folder / f"{_name(maker, rows)}.npz"
    items = _read(file, len(rows))
    if items is not None:
        yield from items
        return
    items = []
    for item in make(rows):
        items.append(item)
        yield item
    _write(file, items)


def identity(tokenizer: Any, **facts: Any) -> str | None:
    """Of a template: what its tokens are a function of besides the rows.

    Args:
        facts: of the template, as JSON has them.

    Returns:
        None where it cannot be told: the tokenizer is not a fast one, whose whole state is text, or
        the chat template asks what time it is.
    """
    if not getattr(tokenizer, "is_fast", False) or "strftime_now" in str(facts.get("jinja")):
        return None
    state = {
        "tokenizer": [type(tokenizer).__name__, tokenizer.backend_tokenizer.to_str()],
        # What the template writes by name: they are not in the state.
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "split": bool(getattr(tokenizer, "split_special_tokens", False)),
        "code": _code(),
        **facts,
    }
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


@cache
def _code() -> str:
    """Of this room's code, and of the versions of what it calls."""
    import jinja2
    import tokenizers
    import transformers

    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for library in (jinja2, tokenizers, transformers):
        digest.update(f"{library.__name__} {library.__version__}".encode())
    return digest.hexdigest()


def _name(maker: str, rows: Sequence[Row]) -> str:
    content = (rows if isinstance(rows, Rows) else Rows(tuple(rows))).content_hash
    return hashlib.sha256(f"{maker} {content}".encode()).hexdigest()[:40]


def _read(file: Path, count: int) -> list[Encoded] | None:
    """None where there is no such file, or another than was written under its name."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            name, tokens, reasons, lengths = (
                arrays[field] for field in ("name", "tokens", "reasons", "lengths")
            )
        if str(name) != file.stem or lengths.shape != (count,) or len(tokens) != len(reasons):
            return None
        why = [REASONS[reason] for reason in reasons.tolist()]
        ids = tokens.tolist()
        spans = list(pairwise([0, *accumulate(lengths.tolist())]))
        if spans and spans[-1][1] != len(ids):
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # used now
    except DAMAGE:
        return None
    return [Encoded(tuple(ids[start:end]), tuple(why[start:end])) for start, end in spans]


def _write(file: Path, items: Sequence[Encoded]) -> None:
    """Nothing is said where it cannot be: the next start makes them again."""
    total = sum(map(len, items))
    if total < LEAST or total * BYTES > ROOM // 4:
        return
    number = {reason: i for i, reason in enumerate(REASONS)}
    arrays: dict[str, Any] = {
        "name": np.array(file.stem),
        "tokens": np.fromiter((t for item in items for t in item.tokens), np.int32, total),
        "reasons": np.fromiter(
            (number[r] for item in items for r in item.reasons), np.uint8, total
        ),
        "lengths": np.array([len(item) for item in items], np.int64),
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: two processes may write the same.
        handle, partial = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as opened:
                np.savez(opened, **arrays)
            Path(partial).replace(file)
        finally:
            Path(partial).unlink(missing_ok=True)
        _make_room(file.parent)
    except OSError:
        return


def _make_room(folder: Path) -> None:
    """Remove what was used longest ago, and what a process that was killed left half-written."""
    for path in folder.glob(".*.partial"):
        if path.stat().st_mtime < time.time() - ABANDONED:
            path.unlink(missing_ok=True)
    files = sorted(
        ((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.npz")),
        reverse=True,
    )
    for (_, _, path), held in zip(files, accumulate(size for _, size, _ in files), strict=True):
        if held > ROOM:
            path.unlink(missing_ok=True)
