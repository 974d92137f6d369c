"""How a contender's process talks: it waits for a line, trains one round, prints one line of JSON.

Knows processes; needs neither fitune nor any peer.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path


class Meter:
    """Counts of one round."""

    def __init__(self) -> None:
        self.tokens = 0
        self.losses: list[float] = []
        self._started = 0.0

    def wait(self) -> None:
        """Until the next round is asked for, without the memory of the last one: other contenders
        wait beside this one."""
        ctypes.CDLL(None).malloc_trim(0)
        if not sys.stdin.readline():
            sys.exit(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        self.tokens, self.losses = 0, []
        self._started = time.perf_counter()

    def tell(self) -> None:
        seconds = time.perf_counter() - self._started
        status = Path("/proc/self/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in status)
        facts = {
            "seconds": seconds,
            "tokens": self.tokens,
            "loss": sum(self.losses) / len(self.losses),
            "peak_bytes": int(fields["VmHWM"].split()[0]) * 1024,
        }
        print("ROUND " + json.dumps(facts), flush=True)
