"""Values come back as they were put down, from memory and from a file that nobody sees."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fitune.training import kept_values
from fitune.training.kept_values import Kept, Part, keep

ROWS = [(5, 6, 7), (5, 6), (9,), (4, 4, 4, 4)]
COUNTS = [3, 2, 1, 4]


def values(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(40.0).view(10, 4).to(dtype) / 7


def parts(dtype: torch.dtype = torch.float32) -> Iterator[Part]:
    yield Part(ROWS[:3], COUNTS[:3], values(dtype)[:6])
    yield Part(ROWS[3:], COUNTS[3:], values(dtype)[6:])


def find(kept: Kept, *rows: int) -> torch.Tensor | None:
    """Rows side by side, padded with a token that others have, too."""
    width = max(len(ROWS[row]) for row in rows)
    ids, mask = torch.full((len(rows), width), 9), torch.zeros(len(rows), width, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : COUNTS[row]] = torch.tensor(ROWS[row])
        mask[i, : COUNTS[row]] = 1
    return kept.find(ids, mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("room", [sys.maxsize, 0], ids=["memory", "file"])
def test_rows_are_found_by_their_tokens(room: int, dtype: torch.dtype, tmp_path: Path) -> None:
    kept = keep(parts(dtype), 10, room=room, folder=tmp_path)
    assert (kept.file is None) == (room > 0)
    assert kept.bytes == 40 * dtype.itemsize
    for row, (start, count) in enumerate(zip([0, 3, 5, 6], COUNTS, strict=True)):
        found = find(kept, row)
        assert found is not None and found.dtype == dtype
        assert torch.equal(found[0], values(dtype)[start : start + count])
    both = find(kept, 1, 0)
    assert both is not None and both.shape == (2, 3, 4)
    assert torch.equal(both[0], values(dtype)[[3, 4, 4]]), "padding repeats the last"
    assert torch.equal(both[1], values(dtype)[:3])
    kept.close()


def test_a_row_that_is_not_known(tmp_path: Path) -> None:
    kept = keep(parts(), 10, room=sys.maxsize, folder=tmp_path)
    ids, mask = torch.tensor([[5, 6, 7], [5, 6, 8]]), torch.ones(2, 3, dtype=torch.int64)
    assert kept.find(ids[:1], mask[:1]) is not None
    assert kept.find(ids, mask) is None
    assert kept.find(ids[:1], torch.tensor([[0, 0, 0]])) is None


def test_memory_is_used_up_to_the_last_byte(tmp_path: Path) -> None:
    assert keep(parts(), 10, room=160, folder=tmp_path).file is None
    with_file = keep(parts(), 10, room=159, folder=tmp_path)
    assert with_file.file is not None
    if sys.platform != "win32":
        assert list(tmp_path.iterdir()) == [], "nothing to be left behind, however a process ends"
    with_file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_values, "disk_free", lambda folder: 159)
    with pytest.raises(OSError, match="No space left"):
        keep(parts(), 10, room=0, folder=tmp_path)
    monkeypatch.setattr(kept_values, "disk_free", lambda folder: 160)
    keep(parts(), 10, room=0, folder=tmp_path).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **options: full)
    with pytest.raises(OSError, match="No space left"):
        keep(parts(), 10, room=0, folder=tmp_path)
    assert full.closed
