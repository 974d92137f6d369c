"""Promise: kill -9 at any moment, resume: the result is bit-identical to the uninterrupted run.
`./run torture` kills 200 runs; here it is a handful."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.torture import differences  # noqa: E402


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="most attempts are forks")
def test_a_handful_of_kills(tmp_path: Path) -> None:
    """Any moment and inside a write of a checkpoint, of an encoder and of a decoder."""
    words = [str(ROOT / "benchmarks" / "torture.py"), str(tmp_path), "--kills", "4", "--json"]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in json.loads(done.stdout)["kinds"].values():
        assert kind["runs"] == kind["alike"] == 2 and kind["kills"] >= 2
        assert kind["odd"] == []
    runs = [tmp_path / kind / "torture-1" for kind in ("encoder", "decoder")]
    assert all(differences(run, run) == [] for run in runs)
    _differences_are_seen(runs[1], tmp_path / "other")


def _differences_are_seen(run: Path, copy: Path) -> None:
    """The comparison can fail."""

    def last_bit(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    def another_loss(path: Path) -> None:
        path.write_text(path.read_text().replace('"loss": ', '"loss": 1', 1))

    changes: dict[str, Callable[[Path], Any]] = {
        "model/adapter/adapter_model.safetensors": last_bit,
        "metrics.jsonl": another_loss,
        "predictions.jsonl": lambda path: path.write_text(path.read_text().replace("pin", "pln")),
    }
    for name, change in changes.items():
        shutil.copytree(run, copy)
        change(copy / "rungs" / "tuned" / name)
        assert differences(run, copy) == [name]
        shutil.rmtree(copy)
