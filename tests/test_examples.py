"""Every example is a sound task file, and runs: on tiny models and a few rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import fitune
from fitune.taskfile import load_task

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CAPS = ["data.max_rows.train=80", "data.max_rows.validation=10", "data.max_rows.test=10"]
CONTEXT = 1024


def test_there_are_examples_of_all_kinds() -> None:
    kinds = {load_task(path).kind for path in EXAMPLES}
    assert kinds == {"classify", "generate", "language-model"}


@pytest.fixture
def banking(tmp_path: Path) -> Path:
    """Rows with the columns of banking77."""
    path = tmp_path / "bank.csv"
    lines = [f"where is my {w} {i},{w}_issue" for i in range(30) for w in ("card", "transfer")]
    path.write_text("\n".join(["text,category", *lines]) + "\n")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two answers to each prompt."""
    path = tmp_path / "pairs.jsonl"
    records = [
        {"prompt": f"where is my card {i}", "chosen": f"please help {i}", "rejected": "why"}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(
    path: Path,
    tmp_path: Path,
    banking: Path,
    questions: Path,
    pairs: Path,
    tiny_encoder: Path,
    tiny_decoder: Path,
) -> None:
    task = load_task(path)
    # 26 labels in words of few letters are hundreds of tokens to the tiny tokenizer.
    decoder = tmp_path / "tiny-long"
    shutil.copytree(tiny_decoder, decoder)
    about = json.loads((decoder / "config.json").read_text())
    (decoder / "config.json").write_text(json.dumps({**about, "max_position_embeddings": CONTEXT}))
    overrides = [*CAPS, f"output={tmp_path / 'runs'}"]
    for number, approach in enumerate(task.approaches):
        given: dict[str, Any] = approach.model_dump()
        if "model" in given:
            model = {"minilm-l6": tiny_encoder, "smollm2-135m": decoder}[given["model"]]
            overrides.append(f"approaches.{number}.model={model}")
        if given.get("max_length"):
            length = CONTEXT if given["model"] == "smollm2-135m" else 128
            overrides.append(f"approaches.{number}.max_length={length}")
        if given["use"] == "finetuned":
            overrides.append(f"approaches.{number}.epochs=0.3")
    if task.kind == "generate":
        overrides.append("max_answer_tokens=8")
    if not task.data.train.startswith("sample:"):
        rows = banking if task.kind == "classify" else questions
        if any(getattr(approach, "objective", None) == "dpo" for approach in task.approaches):
            rows = pairs
        overrides.append(f"data.train={rows}")
        if task.data.test is not None:
            new = rows.with_name("test.csv")
            new.write_text("text,category\nmy new card,card_issue\na transfer,transfer_issue\n")
            overrides.append(f"data.test={new}")
    result = fitune.ladder(path, overrides=overrides)
    assert len(result.rungs) == len(task.approaches)
    assert (result.run / "report.html").is_file()
    # What the example sets, the run has; nothing was quietly renamed or dropped.
    kept = json.loads((result.run / "task.json").read_text())
    assert kept["name"] == task.name == path.stem
    for given, resolved in zip(task.approaches, kept["approaches"], strict=True):
        assert given.model_dump(exclude={"model", "max_length", "epochs"}, mode="json").items() <= (
            resolved.items()
        )


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_the_command_at_the_top_is_the_examples_own(path: Path) -> None:
    assert f"fitune ladder examples/{path.name}" in path.read_text()
