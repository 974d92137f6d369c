"""Promise: whatever goes wrong in the middle of a run (a row too long, a full disk, a second
process), what is on disk is whole, and what was finished is kept."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fitune.cli import main
from fitune.runs import Run, locked

# --- what shows only once a run works ------------------------------------------------------------


def whole(run: Path) -> list[str]:
    """The finished rungs of a run in which nothing is half-written."""
    assert not [path for path in run.rglob("*") if ".part" in path.name]
    for name in ("task.json", "data.json", "environment.json", "verb.json", "ladder.json"):
        json.loads((run / name).read_text())
    assert "<html" in (run / "report.html").read_text()
    rungs = sorted(path.parent for path in run.glob("rungs/*/rung.json"))
    for rung in rungs:
        assert {"model", "options.json", "predictions.jsonl"} <= {p.name for p in rung.iterdir()}
    assert json.loads((run / "ladder.json").read_text())["status"] == "running"
    return [rung.name for rung in rungs]


IN_RUN: list[tuple[str, Callable[[Any], list[str]], tuple[str, ...]]] = [
    (
        "longer-than-the-context",
        lambda b: (
            b.write(
                "rows.csv", b.content + f"{'card ' * 300},lost_card\n{'pin ' * 300},change_pin\n"
            ),
            b.task({"use": "majority"}, b.tuned(name="long", max_length=32)),
        )[1],
        ("long:", "longer than 32 tokens", "data.too_long"),
    ),
    (
        "every-row-dropped",
        lambda b: b.task(
            {"use": "majority"},
            b.tuned(name="short", max_length=3),
            data={"too_long": "drop"},
        ),
        ("short:", "none is left"),
    ),
    (
        "unknown-target-modules",
        lambda b: b.task(
            {"use": "majority"}, b.tuned(name="x", method="lora", target_modules=["q_prj"])
        ),
        ("x:", "q_prj", "query"),
    ),
    (
        "broken-safetensors",
        lambda b: b.task(
            {"use": "majority"},
            b.tuned(name="x")
            | {
                "model": b.model(
                    "encoder", lambda m: (m / "model.safetensors").write_bytes(b"\0" * 64)
                )
            },
        ),
        ("x:", "broken-encoder"),
    ),
    (
        "few-shot-does-not-fit",
        lambda b: b.task(
            {"use": "majority"},
            {"use": "few-shot", "model": str(b.models["decoder"]), "max_length": 20},
        ),
        ("few-shot:", "max_length 20"),
    ),
    (
        "diverging",
        lambda b: b.task(
            {"use": "majority"}, b.tuned(name="x", learning_rate=1e30, optimizer="sgd", clip=1e30)
        ),
        ("x:", "diverged", "learning_rate"),
    ),
]


@pytest.mark.parametrize(
    ("build", "said"), [case[1:] for case in IN_RUN], ids=[case[0] for case in IN_RUN]
)
def test_a_mistake_that_shows_late_keeps_the_finished_rungs(
    bench: Any, refused: Any, build: Any, said: tuple[str, ...]
) -> None:
    told = refused(build(bench))
    for fragment in said:
        assert fragment in told, told
    (run,) = bench.folders()
    assert whole(run) == ["majority"]


def test_a_run_in_which_nothing_was_learned_is_removed(bench: Any, refused: Any) -> None:
    refused(bench.task(bench.tuned(max_length=3)))
    assert bench.folders() == []


# --- what the machine refuses --------------------------------------------------------------------


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_folder_can_stand_inside_a_file(bench: Any, refused: Any) -> None:
    for output in ("rows.csv", "rows.csv/runs"):
        told = refused([*bench.task(), "--set", f"output={output}"])
        assert "rows.csv" in told and "`output`" in told


@pytest.mark.parametrize(("what", "said"), [("mkdir", "permission"), ("read_bytes", "may not be")])
def test_no_permission(bench: Any, refused: Any, monkeypatch: Any, what: str, said: str) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    words = bench.task()
    with monkeypatch.context() as patch:
        patch.setattr(Path, what, refuse)  # root may do anything, so chmod would not do
        told = refused(words)
    assert said in told and str(bench.folder) in told


@pytest.mark.parametrize("allowed", range(0, 24, 4))
def test_full_disk_at_any_moment(bench: Any, refused: Any, monkeypatch: Any, allowed: int) -> None:
    """After so many files the disk is full: one sentence, and what is there goes on later."""
    words = bench.task({"use": "majority"}, {"use": "linear"})
    sync, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count > allowed:
            full()
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("fitune.runs.os.fsync", fsync)
        told = refused(words)
    assert "disk is full" in told and "--resume" in told
    for run in bench.folders():
        assert not [path for path in run.rglob("*") if ".part" in path.name]
        for path in run.rglob("*.json"):
            json.loads(path.read_text())
        assert main(["ladder", "--resume", str(run), "--quiet"]) == 0
    assert bool(bench.folders()) == (allowed > 8), "a run in which nothing was learned is removed"


def test_full_disk_while_a_checkpoint_is_written(
    bench: Any, refused: Any, monkeypatch: Any
) -> None:
    from safetensors import SafetensorError

    from fitune.training import checkpoint

    words = bench.task(bench.tuned(name="x", epochs=2, batch_size=4, checkpoint_steps=2))
    write, count = checkpoint.save_file, 0

    def save_file(tensors: Any, path: Path) -> None:
        nonlocal count
        if path.name == "optimizer.safetensors":
            count += 1
            if count == 3:
                raise SafetensorError("Error while serializing: I/O error: (os error 28)")
        write(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", save_file)
        told = refused(words)
    assert "x:" in told and "disk is full" in told
    (run,) = bench.folders()
    assert whole(run) == []
    checkpoints = run / "rungs/x/checkpoints"
    steps = [path.name for path in checkpoints.iterdir() if path.name != "best"]
    assert steps == ["step-00000004"], "the earlier checkpoint is still there"
    part = checkpoints / "step-00000004/parameters.safetensors"
    good = part.read_bytes()
    part.write_bytes(b"\0" * 20)
    assert "checkpoint" in refused(["ladder", "--resume", str(run)])
    part.write_bytes(good)
    assert main(["ladder", "--resume", str(run), "--quiet"]) == 0
    assert not checkpoints.exists(), "a finished rung keeps its model only"


def test_full_disk_for_training_records(bench: Any, refused: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("fitune.training.track.json", SimpleNamespace(dumps=full))
    assert "disk is full" in refused(bench.task(bench.tuned(name="x")))


def test_a_run_in_use_is_left_alone(bench: Any, refused: Any) -> None:
    run = bench.run()
    before = bench.kept()
    with locked(Run(run)):
        assert str(run) in refused(["ladder", "--resume", str(run)])
        assert bench.kept() == before
        assert main(["evaluate", str(run), "rows.csv", "--quiet"]) == 0, "reading is allowed"


def test_through_a_real_process(bench: Any, told: Any) -> None:
    words = bench.rows("d.csv", bench.content.encode() + b"caf\xe9,lost_card\n")
    done = subprocess.run(
        [sys.executable, "-m", "fitune", *words],
        capture_output=True,
        text=True,
        cwd=bench.folder,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "d.csv:42" in told(done.stderr)
    assert not bench.runs.exists()
