"""`./run bench-gpu`: what it says without a GPU, and how figures are compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import gpu


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err == "torch sees no CUDA GPU here; run this on a machine that has one\n"


def test_how_far_off() -> None:
    near, far = (
        {
            "cell": "gpt2 full sgd fp32 1×8",
            "estimated": dict.fromkeys(gpu.KINDS, estimated),
            "measured": dict.fromkeys(gpu.KINDS, 1000),
        }
        for estimated in (990, 1300)
    )
    broken = {"cell": "bert", "failed": "out of memory"}
    assert "-1.00%" in gpu.said(near) and "+30.00%" in gpu.said(far)
    assert gpu.said(broken).endswith("failed: out of memory")
    lines = gpu.summary([near, far, broken])
    assert lines[0] == "2 of 3 cells measured"
    assert lines[1:] == [f"{kind}: median 15.50%, worst 30.00% off" for kind in gpu.KINDS]
    assert gpu.summary([broken]) == ["0 of 1 cells measured"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_small_cell_on_the_gpu() -> None:
    result = gpu.in_own_process(gpu.parse("gpt2 full sgd fp32 2×64"))
    assert abs(gpu.off({"cell": "", **result}, "live")) < 0.1
