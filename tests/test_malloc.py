"""What the C library does with freed memory, seen from outside the process's own account."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fitune.malloc import FRAGMENTED

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")

WORK = """
import sys
from pathlib import Path
import torch
from fitune import malloc

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS"))

getattr(malloc, sys.argv[1])()
before = held()
for mib in range(2, 40):  # of ever other sizes: no hole fits the next block
    blocks = [torch.ones(mib << 18) for _ in range(4)]
    small = torch.ones(1000)
del blocks
print(held() - before)
"""


def after(choice: str) -> int:
    """MiB that a process holds after work that needed at most 156 at once, and freed it."""
    done = subprocess.run(
        [sys.executable, "-c", WORK, choice], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_large_blocks_are_given_back_and_the_heap_keeps_its_own() -> None:
    assert after("map_large_blocks") < 16
    assert after("keep_freed_memory") > 100


@pytest.mark.parametrize(("needed", "chosen"), [(100, True), (101, False)])
def test_what_is_kept_depends_on_the_room_for_it(
    needed: int, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fitune import malloc

    called = []
    for name in ("keep_freed_memory", "map_large_blocks"):
        monkeypatch.setattr(malloc, name, lambda name=name: called.append(name))
    malloc.prepare_for_training(needed, 100 * FRAGMENTED)
    assert malloc.has_plenty(needed, 100 * FRAGMENTED) is chosen
    assert called == ["keep_freed_memory" if chosen else "map_large_blocks"]
