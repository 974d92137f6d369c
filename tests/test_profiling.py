"""`tune --profile` from end to end: figures, advice, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fitune
from fitune.cli import main
from fitune.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's limit takes a second to measure."""
    from fitune.training import matrix_limit

    found = matrix_limit.MatrixLimit(5e10, "float32", (64, 64, 64))
    for place in ("training.profile", "approaches.finetuned_profile"):
        monkeypatch.setattr(f"fitune.{place}.matrix_limit", lambda *given: found)


def tuned(model: Path, **options: Any) -> dict[str, Any]:
    fixed = {"use": "finetuned", "model": str(model), "batch_size": 8, "dtype": "fp32"}
    return {**fixed, **options}


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("tiny_encoder", {"max_train_rows": 40}),
        ("tiny_native_encoder", {"method": "lora"}),
        ("tiny_decoder", {"method": "lora", "checkpointing": True}),
        ("tiny_decoder", {"method": "prompt-tuning"}),
    ],
)
def test_every_kind_of_model(
    fixture: str,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
    intents: Path,
    task_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    approach = tuned(request.getfixturevalue(fixture), name="mine", **options)
    file = task_file(kind="classify", data={"train": str(intents)}, approaches=[approach])
    before = everything(tmp_path)
    result = fitune.profile(file, steps=2)
    assert everything(tmp_path) == before
    assert (result.rung, result.profile.steps, result.profile.rows) == ("mine", 2, 8)
    assert result.profile.flops.total > 0 and result.profile.advice
    assert result.profile.evaluation_seconds and result.profile.evaluation_seconds > 0
    assert result.options["learning_rate"] is not None
    assert ("checkpointing" in " ".join(result.profile.advice)) == ("checkpointing" in options)
    assert json.loads(json.dumps(result.to_json()))["profile"]["steps"] == 2


@pytest.mark.parametrize(
    ("kind", "options"),
    [("language-model", {"max_length": 32}), ("generate", {"objective": "dpo"})],
)
def test_every_kind_of_task(
    kind: str,
    options: dict[str, Any],
    tiny_decoder: Path,
    task_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    rows = tmp_path / "rows.csv"
    pairs = [f"my {w} {i},help {w},no {i}" for i in range(30) for w in ("card", "pin")]
    rows.write_text("\n".join(["prompt,chosen,rejected", *pairs]))
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"my card is {i} and the bank is closed " * 4 for i in range(40)))
    file = task_file(
        kind=kind,
        data={"train": str(text if kind == "language-model" else rows)},
        approaches=[tuned(tiny_decoder, method="lora", **options)],
    )
    found = fitune.profile(file, steps=1).profile
    assert found.flops.total > 0 and found.tokens > 0
    assert (found.evaluation_seconds is None) == (kind == "generate")


def test_a_later_run_is_as_if_nothing_had_been(
    tiny_encoder: Path, intents: Path, task_file: Callable[..., Path]
) -> None:
    approach = tuned(tiny_encoder, epochs=1)
    file = task_file(kind="classify", data={"train": str(intents)}, approaches=[approach])
    first = fitune.tune(file)
    fitune.profile(file, steps=1)
    again = fitune.tune(file)
    assert again.run.name == "task-2" and again.rung.value == first.rung.value


def test_mistakes_are_those_of_tune(
    tiny_encoder: Path, intents: Path, task_file: Callable[..., Path], capsys: Any
) -> None:
    data = {"train": str(intents)}
    file = task_file(kind="classify", data=data, approaches=[{"use": "majority"}])
    with pytest.raises(ConfigError, match="lists no approach with `use: finetuned`"):
        fitune.profile(file)
    long = tuned(tiny_encoder, max_length=3)
    with pytest.raises(DataError, match="training rows"):
        fitune.profile(task_file(kind="classify", data=data, approaches=[long]))
    assert main(["tune", str(file), "--profile", "0"]) == 2
    assert "'0' is not a whole number above 0" in capsys.readouterr().err
    assert main(["tune", "--resume", "run", "--profile"]) == 2
    assert "you did not give TASK.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["80", "160"])
def test_what_is_printed(
    tiny_decoder: Path,
    intents: Path,
    task_file: Callable[..., Path],
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    width: str,
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    approach = tuned(tiny_decoder, name="mine", method="lora")
    file = task_file(kind="classify", data={"train": str(intents)}, approaches=[approach])
    assert main(["tune", str(file), "--profile", "1", "--quiet"]) == 0
    out = capsys.readouterr().out
    for said in ("mine: ", "tokens/s", "forward", "matrix products", "50.0 GFLOP/s, measured"):
        assert said in out
    assert "What would make it faster\n• " in out
    assert main(["tune", str(file), "--profile", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"]["steps"] == 1


def test_the_command_line_measures_five_steps_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def profile(task: Any, **options: Any) -> Any:
        given.append((task, options["steps"], options["overrides"], options["rung"]))
        raise ConfigError("enough", fix="stop")

    monkeypatch.setattr("fitune.api.profile", profile)
    assert main(["tune", "t.yaml", "--profile", "--rung", "a", "--set", "seed=1"]) == 2
    assert main(["tune", "t.yaml", "--profile", "9"]) == 2
    assert given == [("t.yaml", 5, ["seed=1"], "a"), ("t.yaml", 9, [], None)]
