"""Promise: however a run was stopped, going on ends bit-identical to the uninterrupted run (kill -9
at random moments: `test_torture`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.errors import Interrupted, RunError
from fitune.training import checkpoint as checkpoints
from fitune.training.methods import trainable_parameters
from training_kit import Kit

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.torture import differences

LIMITED = """
import resource, sys
from fitune.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main())
"""
"""As `python -m fitune`, where no file may grow beyond what the weights need: the optimizer's
states are twice as large."""


def tune(*arguments: str, program: Sequence[str] = ("-m", "fitune")) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program, "tune", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and the last line on stderr."""
    _, err = process.communicate(timeout=280)
    assert "Traceback" not in err and "bug in fitune" not in err, err
    return process.returncode, err.splitlines()[-1] if err else ""


def wait_for_steps(metrics: Path, steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"ended before it was stopped: {process.communicate()}")
        if metrics.is_file() and metrics.read_text().count('"train"') >= steps:
            return
        time.sleep(0.005)
    pytest.fail("training did not get that far")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are POSIX's")
def test_every_way_to_be_stopped(
    tiny_encoder: Path, intents: Path, task_file: Callable[..., Path], tmp_path: Path, told: Any
) -> None:
    """SIGTERM, Ctrl-C, a disk that takes no more and rows that are gone: each time a line says how
    to go on, and in the end nothing differs from a run that was left alone."""
    tuned = {
        "use": "finetuned", "name": "tuned", "model": str(tiny_encoder), "epochs": 12,
        "batch_size": 4, "micro_batch_tokens": 32, "checkpoint_steps": 7,
    }  # fmt: skip
    task = str(
        task_file(kind="classify", name="a", data={"train": str(intents)}, approaches=[tuned])
    )
    assert ended(tune(task))[0] == 0
    run = tmp_path / "runs" / "a-2"
    go_on = f"fitune tune --resume {run}"
    for arguments, number, steps in (
        ((task,), signal.SIGTERM, 31),
        (("--resume", str(run)), signal.SIGINT, 95),
    ):
        process = tune(*arguments)
        wait_for_steps(run / "rungs" / "tuned" / "metrics.jsonl", steps, process)
        process.send_signal(number)
        code, said = ended(process)
        assert code == 130
        assert said == f"Stopped; the work so far is saved. Go on with: {go_on}"
        (checkpoint,) = (run / "rungs" / "tuned" / "checkpoints").glob("step-*")
        assert int(checkpoint.name.removeprefix("step-")) >= steps

    kept = {path: path.read_bytes() for path in checkpoint.iterdir()}
    code, said = ended(tune("--resume", str(run), program=("-c", LIMITED)))
    assert code == 2 and "larger than this process may write" in told(said + "\n")
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == kept
    assert not list(run.rglob("*.partial"))

    away = intents.rename(tmp_path / "away.csv")
    code, said = ended(tune("--resume", str(run)))
    assert code == 2 and str(intents) in told(said + "\n")
    away.rename(intents)

    assert ended(tune("--resume", str(run)))[0] == 0
    assert differences(tmp_path / "runs" / "a-1", run) == []


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
            if path.stem == file and path.parents[1].name == "checkpoints":
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
