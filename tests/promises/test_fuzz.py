"""Promise: whatever a task file or a data file holds, fitune does it or says in one sentence why
not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROWS = "text,label\n" + "".join(
    f"{word} number {i} {'abcdefg'[i % 7]},{label}\n"
    for i in range(20)
    for word, label in (("card", "lost_card"), ("pin", "change_pin"))
)


# --- fuzz ----------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=8)
    | st.sampled_from(["classify", "majority", "linear", "rows.csv", "auto", "a:b", "json:loads"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
FIELDS = """
kind name data metric target approaches seed device instruction chat_template
trust_remote_code max_answer_tokens data.train data.test data.validation data.format
data.shape data.input data.output data.encoding data.test_fraction
data.validation_fraction data.split_seed data.max_rows data.max_rows.train
data.max_rows.test data.too_long approaches.0 approaches.1 approaches.0.use
approaches.1.use approaches.1.regularization approaches.0.max_train_rows approaches.0.name
"""


@pytest.fixture
def quiet_folder(tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    """A working directory with sound rows; no traceback is kept elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FITUNE_DEBUG", raising=False)
    (tmp_path / "rows.csv").write_text(ROWS)
    yield tmp_path


FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(changes=st.lists(st.tuples(st.sampled_from(FIELDS.split()), VALUES), min_size=1, max_size=4))
def test_fuzzed_task_files(quiet_folder: Path, ends_well: Any, changes: list[Any]) -> None:
    task: dict[str, Any] = {
        "kind": "classify",
        "data": {"train": "rows.csv"},
        "approaches": [{"use": "majority"}, {"use": "linear"}],
    }
    for path, value in changes:
        *parents, last = path.split(".")
        at: Any = task
        for key in parents:
            at = (
                at[int(key)]
                if isinstance(at, list) and key.isdigit() and len(at) > int(key)
                else (at.setdefault(key, {}) if isinstance(at, dict) else None)
            )
        if isinstance(at, dict):
            at[last] = value
        elif isinstance(at, list) and last.isdigit():
            at[: int(last) + 1] = [*at[: int(last)], value]
    (quiet_folder / "task.yaml").write_text(yaml.safe_dump(task, allow_unicode=True))
    ends_well(["ladder", "task.yaml", "--plan"])


@FUZZ
@given(content=st.dictionaries(st.text(max_size=6), VALUES, max_size=3) | VALUES | st.binary())
def test_fuzzed_files(quiet_folder: Path, ends_well: Any, content: Any) -> None:
    written = content if isinstance(content, bytes) else yaml.safe_dump(content).encode()
    (quiet_folder / "task.yaml").write_bytes(written)
    ends_well(["ladder", "task.yaml", "--plan"])


@FUZZ
@given(
    name=st.sampled_from(["d.csv", "d.tsv", "d.json", "d.jsonl", "d.txt", "d.parquet", "d.csv.gz"]),
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    | st.lists(st.dictionaries(st.sampled_from(["text", "label", "x"]), VALUES), max_size=5).map(
        lambda rows: "\n".join(json.dumps(row) for row in rows).encode()
    )
    | st.lists(st.tuples(st.text(max_size=9), st.sampled_from("ab")), max_size=12).map(
        lambda rows: ("text,label\n" + "\n".join(",".join(row) for row in rows)).encode(
            "utf-8", "replace"
        )
    ),
)
def test_fuzzed_data(quiet_folder: Path, ends_well: Any, name: str, content: bytes) -> None:
    (quiet_folder / name).write_bytes(content)
    ends_well(["check", name])
    shutil.rmtree("runs", ignore_errors=True)
    (quiet_folder / "task.yaml").write_text(
        yaml.safe_dump(
            {
                "kind": "classify",
                "data": {"train": name},
                "approaches": [{"use": "majority"}, {"use": "linear"}],
            }
        )
    )
    code = ends_well(["ladder", "task.yaml"])
    runs = list(Path("runs").glob("*"))
    assert len(runs) == (code == 0), "a run that failed before it learned leaves nothing"
