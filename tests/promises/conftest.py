"""A bench on which broken inputs are built, and what a refusal looks like to a user."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fitune import api
from fitune.cli import main

ROWS = "text,label\n" + "".join(
    f"{word} number {i} {'abcdefg'[i % 7]},{label}\n"
    for i in range(20)
    for word, label in (("card", "lost_card"), ("pin", "change_pin"))
)


class Bench:
    """Where a case builds its broken input: a folder with sound rows and tiny models beside it."""

    def __init__(self, folder: Path, models: dict[str, Path], finished: Path | None) -> None:
        self.folder, self.models, self.finished = folder, models, finished
        self.runs, self.content = folder / "runs", ROWS
        self.write("rows.csv", ROWS)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def task(self, *approaches: dict[str, Any], data: dict[str, Any] | None = None, **fields: Any):
        """The words of `fitune ladder` for a task; sound but for what is given."""
        task = {
            "kind": "classify",
            "data": {"train": str(self.folder / "rows.csv"), **(data or {})},
            "output": str(self.runs),
            "approaches": list(approaches) or [{"use": "majority"}],
            **fields,
        }
        self.write("task.yaml", yaml.safe_dump(task))
        return ["ladder", str(self.folder / "task.yaml")]

    def rows(self, name: str, content: str | bytes, **data: Any) -> list[str]:
        self.write(name, content)
        return self.task(data={"train": name, **data})

    def text(self, content: str | bytes) -> list[str]:
        """The words of `fitune ladder` for a task file with this text."""
        return ["ladder", str(self.write("task.yaml", content))]

    def model(self, base: str, change: Callable[[Path], object]) -> str:
        """A copy of a model folder with something changed."""
        copy = self.folder / f"broken-{base}"
        shutil.copytree(self.models[base], copy)
        change(copy)
        return str(copy)

    def tuned(self, base: str = "encoder", **options: Any) -> dict[str, Any]:
        return {"use": "finetuned", "model": str(self.models[base]), "epochs": 1, **options}

    def run(self) -> Path:
        """A finished run of majority and linear."""
        copy = self.runs / "task-1"
        shutil.copytree(self.finished, copy)
        return copy

    def fresh_run(self) -> Path:
        """As `run`, on the rows of this bench."""
        return api.ladder(self.task({"use": "majority"}, {"use": "linear"})[1]).run

    def folders(self) -> list[Path]:
        """Every run there is."""
        return sorted(self.runs.iterdir()) if self.runs.is_dir() else []

    def kept(self) -> dict[str, bytes]:
        """The figures of every run; a report, a lock and the state may be written again."""
        return {
            str(path): path.read_bytes()
            for path in sorted(self.runs.rglob("*.json*"))
            if path.name != "ladder.json"
        }


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be copied."""
    return Bench(tmp_path_factory.mktemp("finished"), {}, None).fresh_run()


@pytest.fixture
def bench(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_decoder: Path,
    tiny_base_decoder: Path,
    tiny_encoder: Path,
    finished: Path,
) -> Bench:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FITUNE_DEBUG", raising=False)
    models = {"decoder": tiny_decoder, "base": tiny_base_decoder, "encoder": tiny_encoder}
    return Bench(tmp_path, models, finished)


def sentence(err: str) -> str:
    """The one sentence; fails on anything else that a user should not see."""
    assert "Traceback" not in err and "bug in fitune" not in err, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and err.endswith(f"{errors[0]}\n"), err
    assert errors[0].endswith(".") and not errors[0].endswith(".."), "ends as a sentence does"
    assert "; " in errors[0], "says how to mend it"
    assert len(errors[0]) < 600, "can be read"
    return errors[0]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Calls fitune, which must refuse with one sentence and nothing else; returns the sentence."""

    def call(words: list[str]) -> str:
        capsys.readouterr()
        code = main([*words, "--quiet"])
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, ""), captured.err
        assert captured.err.count("\n") == 1, captured.err
        return sentence(captured.err)

    return call


@pytest.fixture
def ends_well(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], int]:
    """Calls fitune, which must do it or refuse with one sentence; returns the exit code."""

    def call(words: list[str]) -> int:
        capsys.readouterr()
        code = main([*words, "--quiet"])
        captured = capsys.readouterr()
        assert code in (0, 2), captured.err
        if code == 2 and not (words[0] == "check" and captured.out):  # findings may be the reason
            sentence(captured.err)
        return code

    return call


@pytest.fixture(scope="session")
def told() -> Callable[[str], str]:
    """`sentence`, for what a process of its own wrote."""
    return sentence
