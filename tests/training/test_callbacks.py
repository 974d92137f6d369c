"""Callbacks: they hear the records of metrics.jsonl, in order, and how training ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fitune.errors import ConfigError, Interrupted, TrainingError
from fitune.training.callbacks import EVENTS, Callback, Callbacks, Start, check_callbacks
from training_kit import Kit


class Hears(Callback):
    """Remembers every event."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_start(self, start: Start) -> None:
        self.heard.append(("start", start))

    def on_step(self, record: Any) -> None:
        self.heard.append(("step", dict(record)))

    def on_evaluate(self, record: Any) -> None:
        self.heard.append(("evaluate", dict(record)))

    def on_checkpoint(self, step: int, folder: Path) -> None:
        assert (folder / "state.json").is_file()
        self.heard.append(("checkpoint", step))

    def on_end(self, trained: Any) -> None:
        self.heard.append(("end", trained))

    def of(self, event: str) -> list[Any]:
        return [fact for name, fact in self.heard if name == event]


class Fails(Callback):
    """Fails at one event."""

    def __init__(self, event: str) -> None:
        self.times = 0

        def fail(*facts: Any) -> None:
            self.times += 1
            raise OSError("no\nnetwork")

        setattr(self, event, fail)


def test_they_hear_what_metrics_jsonl_says(kit: Callable[..., Kit], tmp_path: Path) -> None:
    hears = Hears()
    made = kit(rows=16, epochs=2.0, checkpoint_steps=2)
    trained = made.train(tmp_path, callback=hears, validate_before=True)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        fact for name, fact in hears.heard if name in ("step", "evaluate")
    ]
    assert [name for name, _ in hears.heard] == [
        "start", "evaluate",
        "step", "step", "evaluate", "checkpoint", "step", "step", "evaluate", "checkpoint",
        "end",
    ]  # fmt: skip
    (start,) = hears.of("start")
    assert (start.folder, start.step, start.steps, start.resumed) == (tmp_path, 0, 4, False)
    assert start.recorded == {} and start.options["rank"] == 4
    assert hears.of("checkpoint") == [2, 4] and hears.of("end") == [trained]


def test_a_training_that_goes_on_says_so(kit: Callable[..., Kit], tmp_path: Path) -> None:
    """Stopped after step 3 of 4, with records of a later step that a killed process left."""
    asked = iter([False, False, True])
    first, second = Hears(), Hears()
    options = {"rows": 16, "epochs": 2.0}
    with pytest.raises(Interrupted), Callbacks([first]) as callbacks:
        kit(**options).train(tmp_path, callback=callbacks, stop_requested=asked.__next__)
    assert first.of("end") == [None]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 4, "loss": 1.0}\n')
    with Callbacks([second]) as callbacks:
        trained = kit(**options).train(tmp_path, callback=callbacks)
    (start,) = second.of("start")
    assert (start.step, start.resumed) == (3, True)
    assert start.recorded == {"train": 4, "validation": 2}
    assert [record["step"] for record in second.of("step")] == [4]
    assert second.of("end") == [trained]


@pytest.mark.parametrize("event", EVENTS)
def test_a_callback_that_fails_ends_training_in_one_sentence(
    kit: Callable[..., Kit], tmp_path: Path, event: str
) -> None:
    hears = Hears()
    with (
        pytest.raises(TrainingError, match=rf"'Fails' failed in {event} \(OSError: no network\)"),
        Callbacks([hears, Fails(event)]) as callbacks,
    ):
        kit(rows=8, epochs=1.0).train(tmp_path, callback=callbacks)
    assert [name for name, _ in hears.heard].count("end") == 1


@pytest.mark.parametrize("event", EVENTS)
def test_a_sink_that_fails_is_left_out(kit: Callable[..., Kit], tmp_path: Path, event: str) -> None:
    notices: list[str] = []
    hears, fails = Hears(), Fails(event)
    with Callbacks([], [fails, hears], notices.append) as callbacks:
        trained = kit(rows=16, epochs=1.0).train(tmp_path, callback=callbacks)
    assert trained.steps == 2 and fails.times == 1
    assert len(notices) == 1
    assert notices[0].startswith(f"Fails failed in {event} (OSError: no network)")
    assert len(hears.of("step")) == 2 and hears.of("end") == [trained]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_ctrl_c_in_a_sink_is_no_failure() -> None:
    class Stopped(Callback):
        def on_step(self, record: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks([], [Stopped()]).on_step({})


@pytest.mark.parametrize(
    ("given", "what"), [(Callback, "is a class"), (print, "has no on_start"), (3, "has no on_st")]
)
def test_what_is_no_callback_is_refused_at_once(given: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        check_callbacks([Callback(), given])


def test_the_name_is_that_of_run_and_rung(tmp_path: Path) -> None:
    def start(folder: Path) -> Start:
        return Start(folder, {}, 0, 1, False)

    assert start(tmp_path / "runs" / "a-3" / "rungs" / "lora").name == "a-3/lora"


def test_the_example_of_the_guide(
    tiny_decoder: Path,
    intents: Path,
    task_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guide = Path(__file__).parents[2] / "docs" / "tuning.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", guide.read_text("utf-8"), re.S | re.M)
    approach = {"use": "finetuned", "name": "mine", "model": str(tiny_decoder), "epochs": 1}
    file = task_file(kind="classify", data={"train": str(intents)}, approaches=[approach])
    monkeypatch.chdir(file.parent)
    names: dict[str, Any] = {}
    exec(compile(example, str(guide), "exec"), names)
    out = capsys.readouterr().out
    assert out.startswith("task-1/mine: from step 0 to ")
    assert re.search(r"^step 0: \d\.\d{3}$", out, re.M)


def test_an_error_in_a_callback_leaves_a_run_that_goes_on(
    tiny_encoder: Path, intents: Path, task_file: Callable[..., Path], tmp_path: Path
) -> None:
    import fitune

    class Fails(fitune.Callback):
        def on_step(self, record: Any) -> None:
            if record["step"] == 5:
                raise ZeroDivisionError("division by zero")

    approach = {"use": "finetuned", "name": "mine", "model": str(tiny_encoder), "epochs": 1}
    approach |= {"batch_size": 8, "checkpoint_steps": 2}
    file = task_file(kind="classify", data={"train": str(intents)}, approaches=[approach])
    with pytest.raises(fitune.TrainingError, match=r"mine: callback 'Fails' failed in on_step"):
        fitune.tune(file, callbacks=[Fails()])
    hears = Hears()
    whole = fitune.tune(file)
    resumed = fitune.tune(resume=tmp_path / "runs" / "task-1", callbacks=[hears])
    assert resumed.rung.value == whole.rung.value
    (start,) = hears.of("start")
    assert (start.step, start.name, start.recorded["train"]) == (4, "task-1/mine", 5)
    with pytest.raises(fitune.ConfigError, match=r"derived from fitune\.Callback"):
        fitune.tune(file, callbacks=[Hears])  # type: ignore[list-item]
