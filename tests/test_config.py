"""The shape of a task file: every field has limits, and crossing one is one clear sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fitune.config import KNOWN, Custom, Data, Judge, RowCaps, Task
from fitune.errors import ConfigError
from fitune.taskfile import json_schema, load_task, parse_task

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
NAN, INF = float("nan"), float("inf")

# field → values that must be refused; one entry for every field there is.
OF_TASK: dict[str, list[Any]] = {
    "name": ["", "a b", "a/b", ".hidden", "x" * 65, 3, None],
    "kind": ["Classify", "regress", None, 1, ["classify"]],
    "instruction": [3, ["a"], True],
    "data": ["rows.csv", None, []],
    "metric": [1, ["accuracy"]],
    "also": ["mcc", [1], [None], None],
    "judge": ["http://localhost/v1", True, [1]],
    "target": ["high", NAN, INF, True, [1]],
    "approaches": ["linear", {"use": "linear"}, [None], ["linear"], [{}], [[]], 1],
    "max_answer_tokens": [0, -1, 1.5, "many", True],
    "chat_template": [None, 1],
    "track": ["tensorboard", [1], [None], True],
    "seed": [-1, 0.5, None, "x", True],
    "device": ["gpu", "CPU", None, 0],
    "download": ["maybe", None, 2],
    "trust_remote_code": [True, "org/model", [1], [None]],
    "output": [None, 3],
}
OF_DATA: dict[str, list[Any]] = {
    "train": [None, 3, ["a.csv"]],
    "validation": [3, False],
    "test": [3, False],
    "format": ["excel", None, ".csv"],
    "shape": ["ShareGPT", None],
    "input": [0, ["a"]],
    "output": [0, ["a"]],
    "encoding": [None, 8],
    "validation_fraction": [-0.1, 1.0, NAN, "a tenth", None, True],
    "test_fraction": [-0.1, 1.0, INF, None],
    "split_seed": [-1, 1.5, None],
    "max_rows": [100, None, [1, 2, 3]],
    "documents": [3, True, [1], {"a": 1}],
    "too_long": ["cut", True, None],
}
OF_CAPS: dict[str, list[Any]] = {
    "train": [0, -5, 2.5, True, "all"],
    "validation": [0, "all"],
    "test": [0, "all"],
}
OF_JUDGE: dict[str, list[Any]] = {
    "url": [None, 3, "localhost:8000", "ftp://a/v1", "http://", "file:///etc/passwd", "http://a b"],
    "model": [None, 3, ""],
    "key_env": [3, "", "sk-1234", "A KEY", "1KEY"],
    "criterion": [None, 3, ""],
    "rows": [0, -1, 1.5, None, "all", True],
}
COMMON: dict[str, list[Any]] = {
    "name": ["", "a b", 1],
    "max_train_rows": [0, -1, "half", True],
}
PROMPT = {**COMMON, "model": [None, 3], "max_length": [0, -1, 1.5]}
ASKING = {
    **PROMPT,
    "instructions": ["one", [""], [3], None],
    "show_labels": [2, "some"],
    "label_words": [{"a": ""}, {"a": 3}, ["a"], "a"],
    "normalize": ["length", 1, True],
    "calibrate": ["platt", True, 1],
    "stop": [".", [""], [None], None],
    "choices": ["yes", [""], [3], None],
    "json_schema": [3, True, ["a"]],
}
OF_APPROACH: dict[str, dict[str, list[Any]]] = {
    "majority": COMMON,
    "linear": {**COMMON, "regularization": [0, -1.0, NAN, INF, "strong", None, True]},
    "ngram": {
        **COMMON,
        "word_order": [0, 21, 1.5, None, "two"],
        "character_order": [0, 21, 1.5, None],
        "smoothing": ["laplace", None, 1],
    },
    "hmm": {
        **COMMON,
        "tokens": ["letters", None, 1],
        "states": [0, -1, 1.5, None, "many"],
        "iterations": [0, 1.5, None],
        "smoothing": [0, -1.0, NAN, INF, None],
        "seed": [-1, 0.5],
    },
    "recurrent": {
        **COMMON,
        "cell": ["GRU", "transformer", None, 1],
        "tokens": ["letters", 1],
        "hidden": [0, -1, 1.5, None],
        "layers": [0, 1.5, None],
        "bidirectional": [None, 2, "both"],
        "dropout": [-0.1, 1.0, "some"],
        "word_dropout": [-0.1, 1.0],
        "epochs": [0, -1, NAN, INF],
        "learning_rate": [0, -1e-4, NAN, INF, "auto", None],
        "batch_size": [0, -1, 1.5],
        "seed": [-1, 0.5],
    },
    "embeddings": {
        **COMMON,
        "model": [None, 3],
        "regularization": [0, -1.0, NAN, INF, "strong"],
    },
    "knn": {
        **COMMON,
        "retriever": ["qdrant", None, 1],
        "model": [3, True],
        "neighbours": [0, -1, 1.5, "all"],
    },
    "prompt": ASKING,
    "few-shot": {
        **ASKING,
        "examples": [0, -1, None, 1.5],
        "select": ["random", None, 1],
        "order": ["similar", 1],
        "retriever": ["qdrant", 1],
        "encoder": [3, True],
        "candidates": ["some", True],
    },
    "rag": {
        **ASKING,
        "retriever": [None, 3, ["bm25"]],
        "retriever_options": [None, "stem", [1]],
        "encoder": [3, True],
        "passages": [0, -1, 1.5, "all"],
        "passage_tokens": [0, 1.5, "many"],
        "context_tokens": [0, -1, 1.5],
        "rerank": [3, ["a"]],
        "cite": [None, "yes", 1],
        "not_found": ["", 3],
    },
    "finetuned": {
        **PROMPT,
        "context": ["qdrant", 3, True],
        "passages": [0, -1, 1.5, "all"],
        "context_tokens": [0, 1.5, "half"],
        "method": [3, ["lora"]],
        "objective": ["prefer", 3, ["dpo"]],
        "dpo_beta": [0, -0.1, NAN, INF, "auto"],
        "freeze_layers": [0, -1, 1.5],
        "rank": [0, -3, 1.5, None, "big", True],
        "alpha": [0, -1.0, NAN, INF, None],
        "lora_dropout": [-0.1, 1.0, None],
        "rslora": [None, 2, "some"],
        "lora_plus": [0, -1.0, NAN, "fast"],
        "lora_init": ["PiSSA", None, True],
        "adapter": [3, True, ["a"]],
        "target_modules": [None, 3, [3]],
        "virtual_tokens": [0, -1, 1.5, None, "many"],
        "optimizer": [None, 3],
        "learning_rate": [0, -1e-4, NAN, INF, "auto"],
        "head_learning_rate": [0, -1e-4, NAN],
        "layer_decay": [0, 1.1, -0.5, NAN, None],
        "weight_decay": [-0.1, NAN, INF, None],
        "schedule": ["step", None],
        "warmup": [-0.1, 1.0, None],
        "clip": [0, -1.0, INF, None],
        "epochs": [0, -1, NAN, INF],
        "batch_size": [0, -1, 1.5],
        "micro_batch_tokens": [0, 1.5],
        "label_smoothing": [-0.1, 1.0],
        "class_weights": ["equal", 3, {"a": 0}, {"a": "much"}, {"a": NAN}, ["a"]],
        "neftune": [0, -5.0, INF, "some"],
        "ema": [0, 1, 1.5, -0.9, NAN],
        "dropout": [-0.1, 1.0],
        "dtype": ["fp16", "pure-fp16", None],
        "checkpointing": [None, 0, -1, 1.5, "some", [2]],
        "packing": [None, "some", 2],
        "shared_prefix": [None, "some", 2],
        "fused": [None, "some", 2],
        "trunk_cache": [None, "some", 2],
        "patience": [0, None],
        "evaluations_per_epoch": [0, None],
        "checkpoint_steps": [0, 1.5],
        "seed": [-1, 0.5],
    },
}


def task_with(path: list[str | int], value: Any, use: str | None = None) -> dict[str, Any]:
    """A sound task but for one value."""
    task: dict[str, Any] = {"kind": "classify", "data": {"train": "a.csv"}}
    if path[0] == "judge" and len(path) > 1:
        task["judge"] = {"url": "http://localhost/v1", "model": "m"}
    if use is not None:
        task["approaches"] = [{"use": use}]
    at: Any = task
    for key in path[:-1]:
        at = at[key] if isinstance(key, int) else at.setdefault(key, {})
    at[path[-1]] = value
    return task


def cases() -> Iterator[Any]:
    groups: list[tuple[list[str | int], dict[str, list[Any]], str | None]] = [
        ([], OF_TASK, None),
        (["data"], OF_DATA, None),
        (["data", "max_rows"], OF_CAPS, None),
        (["judge"], OF_JUDGE, None),
        *((["approaches", 0], fields, use) for use, fields in OF_APPROACH.items()),
    ]
    for parent, fields, use in groups:
        for field, values in fields.items():
            for value in values:
                path = [*parent, field]
                yield pytest.param(
                    path, value, use, id=f"{use or ''}{'.'.join(map(str, path))}={value!r}"
                )


@pytest.mark.parametrize(
    ("model", "table"),
    [
        (Task, OF_TASK),
        (Data, OF_DATA),
        (RowCaps, OF_CAPS),
        (Judge, OF_JUDGE),
        *((KNOWN[use], fields) for use, fields in OF_APPROACH.items()),
    ],
)
def test_the_tables_here_leave_no_field_out(model: type[BaseModel], table: dict[str, Any]) -> None:
    assert set(table) == set(model.model_fields) - {"use"}


def test_every_known_approach_is_in_a_table() -> None:
    assert set(OF_APPROACH) == set(KNOWN)


@pytest.mark.parametrize(("path", "value", "use"), list(cases()))
def test_every_limit_is_one_clear_sentence(path, value, use) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_task(task_with(path, value, use))
    sentence = str(caught.value)
    assert ".".join(map(str, path)) in sentence
    assert "\n" not in sentence and len(sentence) < 400
    assert "pydantic" not in sentence and "validation error" not in sentence
    assert "more problem" not in sentence  # one mistake is reported as one
    assert caught.value.fix


@pytest.mark.parametrize("use", list(KNOWN))
def test_unknown_fields_are_refused_everywhere(use: str) -> None:
    for parent in ([], ["data"], ["data", "max_rows"], ["judge"], ["approaches", 0]):
        with pytest.raises(ConfigError, match="there is no field 'zzz'"):
            parse_task(task_with([*parent, "zzz"], 1, use))


def test_a_task_cannot_be_changed_after_its_check() -> None:
    task = parse_task({"kind": "classify", "data": {"train": "a.csv"}})
    with pytest.raises(ValueError, match="frozen"):
        task.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("path", EXAMPLES, ids=[p.stem for p in EXAMPLES])
def test_the_examples_are_sound(path: Path) -> None:
    task = load_task(path)
    assert task.approaches
    assert path.read_text().startswith("# ")
    # What is written is what is read: the run folder's task.json makes the same task.
    assert parse_task(task.model_dump()) == task


# ── the JSON Schema ──────────────────────────────────────────────────────────────────────────────


def test_the_schema_names_every_field_and_refuses_others() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    for model in (Data, RowCaps, Judge, *KNOWN.values(), Custom):
        definition = definitions[model.__name__]
        assert set(definition["properties"]) == set(model.model_fields)
        assert definition["additionalProperties"] is False
    assert set(schema["properties"]) == set(Task.model_fields)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"kind", "data"}


def test_in_the_schema_an_approach_is_told_by_its_use() -> None:
    """Editors need exactly one alternative to fit."""
    definitions = json_schema()["$defs"]
    for name, model in KNOWN.items():
        assert definitions[model.__name__]["properties"]["use"] == {"const": name}
        assert "use" in definitions[model.__name__]["required"]
    assert definitions["Custom"]["properties"]["use"]["not"] == {"enum": list(KNOWN)}


# ── whatever a mapping holds ─────────────────────────────────────────────────────────────────────

WORDS = st.sampled_from(
    [
        "kind",
        "data",
        "train",
        "approaches",
        "use",
        "seed",
        "max_rows",
        "options",
        "name",
        "rank",
        "classify",
        "generate",
        "finetuned",
        "linear",
        "majority",
        "lora",
        "a.b:C",
        "sample:pydocs",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | WORDS
    | st.binary(max_size=4)
    | st.dates()
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS | st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {"kind": WORDS, "data": st.fixed_dictionaries({"train": st.text(max_size=5)}) | ANYTHING},
    optional={
        "approaches": st.lists(
            st.fixed_dictionaries(
                {"use": WORDS},
                optional={
                    "rank": LEAVES,
                    "options": ANYTHING,
                    "max_length": LEAVES,
                    "model": st.text(max_size=5),
                },
            )
            | ANYTHING,
            max_size=3,
        )
        | ANYTHING,
        "seed": LEAVES,
        "target": LEAVES,
        "trust_remote_code": ANYTHING,
        "chat_template": LEAVES,
    },
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(WORDS | st.integers() | st.none(), ANYTHING, max_size=5) | NEARLY)
def test_any_mapping_is_a_task_or_one_sentence(content: Any) -> None:
    try:
        task = parse_task(content)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(task, Task)
        assert parse_task(task.model_dump()) == task
