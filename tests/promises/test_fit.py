"""What the plan says fits, fits. Random cases take a minute each (`./run bench fit`); here is one
that classifies and one that writes, run now under the kernel's own limit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.memory.cases import MIB, Case, ran  # noqa: E402

from fitune.memory.headroom import live_bytes  # noqa: E402
from fitune.memory.micro_batch import largest_batch  # noqa: E402

CASES = (
    Case("minilm-l6 full adamw fp32 {}×64", 560 * MIB),
    Case("t5-small lora adamw bf16 {}×64 padded", 480 * MIB),
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA is Linux's")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_the_largest_micro_batch_fits_and_twice_as_many_rows_do_not(case: Case) -> None:
    one = case.cell(1)
    room = live_bytes(case.budget, "cpu", dtype=one.training.options.dtype)
    planned = largest_batch(one.config, one.training, room, pooling=one.pooling).rows
    assert planned > 1
    held = ran(case, planned)
    assert held["ended"] is True, held
    assert held["held"] >= 0.8 * case.budget
    assert ran(case, 2 * planned)["ended"] is False


def test_the_published_cases() -> None:
    """30 at least; whatever was planned ended, nothing was refused that needs much less, and where
    one row more would have fitted, most of the budget is used."""
    found = json.loads((ROOT / "benchmarks" / "memory" / "fit.json").read_text("utf-8"))
    planned = [each for each in found if each["rows"]]
    assert len(found) >= 30
    assert len(planned) >= 20
    assert all(each["ended"] is True for each in planned)
    assert not [each["case"] for each in found if each["broken"]]
    for each in found:  # what needs a tenth more than there is was never planned
        assert each["predicted"] < 1.1 * each["case"]["budget"] or not each["rows"]
