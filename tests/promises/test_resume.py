"""Promise: kill -9 at any moment, resume: the result is bit-identical to the uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fitune.errors import Interrupted, RunError
from fitune.training import checkpoint as checkpoints
from fitune.training.methods import trainable_parameters
from training_kit import Kit

TASK: dict[str, Any] = {
    "kind": "classify",
    "name": "resume",
    "seed": 3,
}


def tune(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fitune", "tune", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_steps(metrics: Path, steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"ended before it was killed: {process.communicate()}")
        if metrics.is_file() and metrics.read_text().count('"train"') >= steps:
            return
        time.sleep(0.005)
    pytest.fail("training did not get that far")


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted((run / "rungs").rglob("*.safetensors")):
        tensors = load_file(file)
        found |= {f"{file.relative_to(run)}:{name}": tensor for name, tensor in tensors.items()}
    return found


def curve(run: Path) -> list[tuple[Any, ...]]:
    """Every record but its wall time."""
    lines = next((run / "rungs").glob("*/metrics.jsonl")).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [tuple(v for k, v in record.items() if k != "seconds") for record in records]


@pytest.mark.slow
def test_kill_9_in_mid_epoch(
    tiny_encoder: Path, intents: Path, task_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Two kills in one run, in the middle of epochs, then to the end."""
    task = task_file(
        **TASK,
        data={"train": str(intents)},
        approaches=[
            {
                "use": "finetuned",
                "name": "tuned",
                "model": str(tiny_encoder),
                "epochs": 12,
                "batch_size": 4,
                "micro_batch_tokens": 32,
                "checkpoint_steps": 7,
            }
        ],
    )
    whole = tune(str(task))
    _, err = whole.communicate(timeout=200)
    assert whole.returncode == 0, err
    runs = tmp_path / "runs"
    killed = runs / "resume-2"
    metrics = killed / "rungs" / "tuned" / "metrics.jsonl"

    for arguments, steps in ((str(task),), 31), (("--resume", str(killed)), 95):
        process = tune(*arguments)
        wait_for_steps(metrics, steps, process)
        process.kill()
        process.communicate()
    last = tune("--resume", str(killed))
    _, err = last.communicate(timeout=200)
    assert last.returncode == 0, err
    assert "going on from step" in err

    expected, found = weights(runs / "resume-1"), weights(killed)
    assert expected.keys() == found.keys() and len(expected) > 10
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert curve(runs / "resume-1") == curve(killed)
    answers = [
        next(r.glob("rungs/*/predictions.jsonl")).read_text() for r in (runs / "resume-1", killed)
    ]
    assert answers[0] == answers[1]


def final(kit: Kit) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainable_parameters(kit.model).items()}


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "sgd"])
def test_stopping_at_any_step_changes_nothing(
    kit: Callable[..., Kit], tmp_path: Path, optimizer: str
) -> None:
    """Interrupted after every second step, by asking, with dropout: still the same bits."""
    options = {"optimizer": optimizer, "lora_dropout": 0.2, "rows": 24, "epochs": 2.0}
    whole = kit(**options)
    whole.train(tmp_path / "whole")
    stops = 0
    while True:
        asked = iter([False, *[True] * 99])
        made = kit(**options)
        try:
            trained = made.train(tmp_path / "parts", stop_requested=asked.__next__)
            break
        except Interrupted:
            stops += 1
    assert stops >= 2 and trained.steps == 6
    for name, tensor in final(whole).items():
        assert torch.equal(tensor, final(made)[name]), name


@pytest.mark.parametrize("file", ["parameters", "optimizer", "state"])
def test_death_inside_a_checkpoint_write(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """The process dies halfway through a file of the second checkpoint: the first one counts."""
    options = {"rows": 24, "epochs": 3.0, "checkpoint_steps": 2}
    whole = kit(**options)
    whole.train(tmp_path / "whole")
    written = [0]
    save_file, write_json = checkpoints.save_file, checkpoints.write_json

    class Death(BaseException):
        """Not an Exception, so that nothing in the program may catch it."""

    def dying(save: Callable[..., None]) -> Callable[..., None]:
        def write(first: Any, second: Any) -> None:
            path = next(p for p in (first, second) if isinstance(p, Path))
            save(first, second)
            if path.stem == file and path.parent.name.startswith(".step-"):
                written[0] += 1
                if written[0] == 2:
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                    raise Death

        return write

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", dying(save_file))
        patch.setattr(checkpoints, "write_json", dying(write_json))
        # What a killed process leaves behind is not cleaned up.
        patch.setattr("fitune.runs.shutil.rmtree", lambda *a, **k: None)
        with pytest.raises(Death):
            kit(**options).train(tmp_path / "parts")
    assert list((tmp_path / "parts" / "checkpoints").glob(".step-*"))
    made = kit(**options)
    notices: list[str] = []
    made.train(tmp_path / "parts", notices=notices)
    assert notices == ["going on from step 2 of 9"]
    for name, tensor in final(whole).items():
        assert torch.equal(tensor, final(made)[name]), name


def test_a_checkpoint_of_other_options_is_refused(kit: Callable[..., Kit], tmp_path: Path) -> None:
    kit(epochs=1.0).train(tmp_path)
    with pytest.raises(RunError, match="other options, data or model"):
        kit(epochs=1.0).train(tmp_path, fingerprint="another")


def test_a_damaged_checkpoint_is_named(kit: Callable[..., Kit], tmp_path: Path) -> None:
    kit(epochs=1.0).train(tmp_path)
    file = next((tmp_path / "checkpoints").glob("step-*/optimizer.safetensors"))
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunError, match=r"step-\d+' is damaged"):
        kit(epochs=1.0).train(tmp_path)
