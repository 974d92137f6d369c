"""Sinks: each record arrives once, also after kills; the libraries are the real ones, where they
are installed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fitune.errors import ConfigError, MissingExtraError
from fitune.training.callbacks import Start
from fitune.training.sinks import SINKS, make_sinks
from fitune.training.sinks.sink import Sink, identity, numbers


def start(folder: Path, step: int = 0, *, resumed: bool = False, **recorded: int) -> Start:
    options = {"rank": 4, "model": "tiny", "epochs": 2.0, "target_modules": ("q", "k"), "ema": None}
    return Start(folder, options, step, 9, resumed, recorded)


def train(step: int, **more: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "loss": 1 / (step + 1), "grad_norm": None, **more}


def validation(step: int) -> dict[str, Any]:
    return {"kind": "validation", "step": step, "loss": 2 / (step + 1), "score": None}


def live(sink: Any, folder: Path) -> None:
    """Killed after step 4, then after step 3, then to the end; checkpoints after step 2."""
    folder.mkdir(exist_ok=True)
    first = sink()
    first.on_start(start(folder))
    first.on_evaluate(validation(0))
    for step in (1, 2, 3, 4):
        first.on_step(train(step))
    first.on_evaluate(validation(4))
    first.on_end(None)  # what a killed process would not say; a sink must take it as unfinished
    for last, recorded in ((3, {"train": 4, "validation": 4}), (5, {"train": 3, "validation": 0})):
        made = sink()
        made.on_start(start(folder, 2, resumed=True, **recorded))
        for step in range(3, last + 1):
            made.on_step(train(step))
        if last == 5:
            made.on_evaluate(validation(4))
        made.on_end(object() if last == 5 else None)


ONCE = {"train/loss": [1, 2, 3, 4, 5], "validation/loss": [0, 4]}


class Recorder(Sink):
    """Keeps what a library would be given, in one place for all its instances."""

    given: list[tuple[str, Any]]

    def open(self, start: Start) -> None:
        self.given.append(("open", identity(start.folder)))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.given.append((str(step), dict(numbers)))

    def close(self, *, finished: bool) -> None:
        self.given.append(("close", finished))


def test_a_record_that_comes_again_is_handed_on_once(tmp_path: Path) -> None:
    given: list[tuple[str, Any]] = []
    live(type("Mine", (Recorder,), {"given": given}), tmp_path)
    steps = {
        name: [int(event) for event, fact in given if event.isdecimal() and name in fact]
        for name in ONCE
    }  # fmt: skip
    assert steps == ONCE
    assert len({fact for event, fact in given if event == "open"}) == 1
    assert [fact for event, fact in given if event == "close"] == [False, False, True]


def test_one_that_never_started_is_not_closed() -> None:
    type("Mine", (Recorder,), {"given": []})().on_end(None)


def test_only_finite_numbers_are_handed_on() -> None:
    record = train(3, seconds=0.5, tokens=7, epoch=float("nan"))
    assert numbers(record) == {"train/loss": 0.25, "train/seconds": 0.5, "train/tokens": 7.0}


def test_two_folders_of_one_name_are_two_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = identity(tmp_path / "a")
    assert first == identity(tmp_path / "a") != identity(tmp_path / "b")
    assert len(first) == 8


@pytest.mark.parametrize("name", SINKS)
def test_a_missing_package_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    extra = "track" if name == "tensorboard" else name
    with pytest.raises(MissingExtraError, match=rf"pip install 'fitune\[{extra}\]'"):
        make_sinks([name])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("json:dumps", "cannot be made"),
        ("collections:OrderedDict", "has no on_start"),
    ],
)
def test_what_is_no_sink_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_sinks([name])


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and no place outside of the test's folder."""

    def refuse(*address: Any) -> None:
        raise AssertionError(f"the network was asked for: {address}")

    monkeypatch.setattr("socket.create_connection", refuse)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "run" / "rungs" / "lora"


def made(name: str) -> Callable[[], Any]:
    return lambda: make_sinks([name])[0]


THEIRS = pytest.mark.filterwarnings("ignore")  # what their own code warns of is not ours


@THEIRS
def test_tensorboard(quiet: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    quiet.mkdir(parents=True)
    live(made("tensorboard"), quiet)
    read = EventAccumulator(str(quiet / "tensorboard"))
    read.Reload()
    scalars = {name: [e.step for e in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert scalars == ONCE
    assert read.Scalars("train/loss")[2].value == pytest.approx(1 / 4)
    assert "options/text_summary" in read.Tags()["tensors"]


@THEIRS
def test_mlflow(quiet: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow import MlflowClient

    quiet.mkdir(parents=True)
    live(made("mlflow"), quiet)
    client = MlflowClient(f"sqlite:///{quiet / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "fitune"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run/lora")
    assert run.data.params["rank"] == "4" and "ema" not in run.data.params
    for name, steps in ONCE.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted(m.step for m in history) == steps


def records_of(file: bytes) -> list[bytes]:
    """Of W&B's own file: seven bytes, then LevelDB's log: blocks of 32 KiB with pieces of records,
    each after a checksum, its length, and whether it is whole (1) or the first, a middle or the
    last piece of one (2, 3, 4)."""
    records, at, begun = [], 7, b""
    while at + 7 <= len(file):
        left = 32768 - at % 32768
        if left < 7:  # too little for another piece
            at += left
            continue
        length, kind = int.from_bytes(file[at + 4 : at + 6], "little"), file[at + 6]
        begun = (
            file[at + 7 : at + 7 + length]
            if kind in (1, 2)
            else begun + file[at + 7 : at + 7 + length]
        )
        records += [begun] if kind in (1, 4) else []
        at += 7 + length
    return records


@THEIRS
def test_wandb(quiet: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    quiet.mkdir(parents=True)
    live(made("wandb"), quiet)
    files = sorted((quiet / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 1, "one run id"
    found: dict[str, list[int]] = {name: [] for name in ONCE}
    for file in files:
        for data in records_of(file.read_bytes()):
            record = Record.FromString(data)
            items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
            for name in found:
                if name in items:
                    found[name].append(int(items["step"]))
    assert {name: sorted(steps) for name, steps in found.items()} == ONCE


@THEIRS
def test_trackio(quiet: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", quiet)
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", quiet)
    quiet.mkdir(parents=True)
    live(made("trackio"), quiet)
    assert trackio
    (database,) = quiet.glob("*.db")
    with sqlite3.connect(database) as opened:
        names = {name for (name,) in opened.execute("select distinct run_name from metrics")}
    assert names == {f"run/lora {identity(quiet)}"}
    logs = SQLiteStorage.get_logs("fitune", names.pop())
    assert {name: sorted(log["step"] for log in logs if name in log) for name in ONCE} == ONCE
    assert capsys.readouterr().out == ""
