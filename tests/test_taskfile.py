"""From a file to a task: YAML's traps, overrides, paths, and where a mistake stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.config import Data, Finetuned, Majority, RowCaps, Task
from fitune.errors import ConfigError, ResourceError
from fitune.taskfile import load_task, parse_task
from fitune.taskproblems import near

SOUND = "kind: classify\ndata:\n  train: a.csv\n"
WITH_APPROACHES = SOUND + "approaches:\n  - use: majority\n  - use: finetuned\n"


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "task.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "task.yaml is empty; start it with `kind: classify`"),
        ("# a comment only\n", "task.yaml is empty"),
        ("- a\n", "must hold `key: value` lines, but holds a list"),
        ("classify\n", "must hold `key: value` lines, but holds the text 'classify'"),
        (SOUND + "kind: generate\n", "the key 'kind' appears twice, in lines 1 and 4"),
        ("data: {train: a, train: b}\n", "the key 'train' appears twice, in lines 1 and 1"),
        (
            WITH_APPROACHES + "    rank: 8\n    rank: 16\n",
            "the key 'rank' appears twice, in lines 7 and 8",
        ),
        ("kind: classify\ndata:\n\ttrain: x\n", "line 3 is indented with a tab"),
        (SOUND + "instruction: a: b\n", "line 4 has a ': ' where no key can stand; put a text"),
        (SOUND + 'name: "abc\n', "line 5 column 1 is not YAML (while scanning a quoted scalar"),
        (SOUND + "---\n" + SOUND, "line 4 starts a second document"),
        (SOUND + "name: !!python/name:os.system x\n", "line 4 holds a value that a task file"),
        (SOUND + "name: 2024-13-45\n", "holds a value that YAML cannot read (month must be"),
        (SOUND + "name: !!float\n", "holds a value that YAML cannot read"),
        (SOUND + "name: !!timestamp x\n", "holds a value that YAML cannot read"),
        (SOUND + "name: !!bool x\n", "holds a value that YAML cannot read"),
        (SOUND + "name: \x07\n", "holds the character U+0007"),
        (b"kind: classify\nname: caf\xe9\n", "line 2 is not UTF-8 (byte 0xe9)"),
        ("[" * 3000, "is nested too deeply"),
        (SOUND + "? [1, 2]\n: 3\n", "line 4 holds a value that a task file cannot"),
        ("kinds: classify\ndata: {train: a}\n", "line 1: there is no field 'kinds' (and 1 more"),
        (SOUND.replace("classify", "clasify"), "line 1: 'kind' is 'clasify', but must be one of "),
        ("kind: classify\n", "task.yaml: 'data' is missing; add `data:` with train, validation"),
        (SOUND + "name: 2024-01-01\n", 'put it in quotes: "2024-01-01"'),
        (SOUND + "seed:\n", "line 4: 'seed' is empty, but must be a whole number of at least 0"),
        (SOUND + "1: 2\n", "line 4: the key 1 is not text"),
        (WITH_APPROACHES + "    rank: yes\n", "line 7: 'approaches.1.rank' is true, but must be"),
        (WITH_APPROACHES + "    rank: -3\n", "line 7: 'approaches.1.rank' is -3, but must be a"),
        (WITH_APPROACHES + "    rnk: 3\n", "line 7: there is no field 'rnk' in approaches.1; did"),
        (SOUND + "approaches: [linear]\n", "is the text 'linear'; write `use: linear`"),
        (SOUND + "approaches:\n  - use: finetunned\n    rank: 1\n", "there is no approach 'finet"),
        (SOUND + "approaches:\n  - rank: 1\n", "approaches.0 does not say which approach it is"),
        (SOUND + "approaches:\n  -\n", "line 5: approaches.0 must be `use: NAME` with its opt"),
    ],
)
def test_each_mistake_is_one_sentence_with_its_place(tmp_path: Path, text, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(written(tmp_path, text))
    assert said in str(caught.value)
    assert "task.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbours(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("banking.yaml").write_text(SOUND)
    with pytest.raises(ConfigError, match=r"no task file bankin\.yaml; did you mean banking\.yaml"):
        load_task("bankin.yaml")
    with pytest.raises(ConfigError, match=r"is a folder, not a task file; did you mean"):
        load_task(".")
    with pytest.raises(ConfigError, match="the folder there is not there either"):
        load_task("there/task.yaml")
    with pytest.raises(ConfigError, match="cannot be opened"):
        load_task("a\0b")
    with pytest.raises(ConfigError, match="cannot be opened"):
        load_task("a" * 5000)
    Path("banking.yaml").unlink()
    with pytest.raises(ConfigError, match="no YAML file is in this folder"):
        load_task("task.yaml")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    path.chmod(0)
    with pytest.raises(ResourceError, match="may not be read"):
        load_task(path)


def test_a_refused_read_says_so(tmp_path: Path, monkeypatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ResourceError, match="may not be read; give yourself access"):
        load_task(tmp_path / "task.yaml")


def test_what_yaml_offers_still_works(tmp_path: Path) -> None:
    text = """\ufeff
kind: classify
data: {train: a.csv}
approaches:
  - &base {use: finetuned, rank: 8, learning_rate: 3e-4}
  - {<<: *base, name: wide, rank: 64}
"""
    first, second = load_task(written(tmp_path, text)).approaches
    assert first == Finetuned(rank=8, learning_rate=3e-4)
    assert second == Finetuned(name="wide", rank=64, learning_rate=3e-4)


# ── overrides ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("seed=7", lambda task: task.seed == 7),
        ("data.max_rows.train=100", lambda task: task.data.max_rows.train == 100),
        ("approaches.1.rank=8", lambda task: task.approaches[1].rank == 8),
        ("approaches.1.learning_rate=3e-4", lambda task: task.approaches[1].learning_rate == 3e-4),
        ("approaches.1.target_modules=[q, k]", lambda t: t.approaches[1].target_modules[1] == "k"),
        ("approaches=[{use: linear}]", lambda task: task.approaches[0].use == "linear"),
        ("approaches.0.use=linear", lambda task: task.approaches[0].use == "linear"),
        ("instruction=a=b", lambda task: task.instruction == "a=b"),
        ("target=null", lambda task: task.target is None),
        ("download=true", lambda task: task.download is True),
    ],
)
def test_overrides(tmp_path: Path, change: str, read) -> None:
    assert read(load_task(written(tmp_path, WITH_APPROACHES), [change]))


def test_the_last_override_wins_and_all_count(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, SOUND), ["seed=1", "name=x", "seed=2"])
    assert (task.seed, task.name) == (2, "x")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed", "the override 'seed' is not of the form field=value"),
        ("=1", "the override '=1' is not of the form"),
        ("seed=[", "the value of the override 'seed=[' is not a YAML value"),
        ("sede=1", "--set: there is no field 'sede'; did you mean 'seed'"),
        ("data.max_rows.tran=5", "no field 'tran' in data.max_rows; did you mean 'train'"),
        ("approaches.1.rnk=5", "no field 'rnk' in approaches.1; did you mean 'rank'"),
        ("approaches.0.rank=5", "there is no field 'rank' in approaches.0; it can be"),
        ("approaches.2.rank=5", "'2' is no position in 'approaches', which holds 2, counted"),
        ("approaches.-1.rank=5", "'-1' is no position in 'approaches'"),
        ("approaches.lora.rank=5", "'lora' is no position in 'approaches'"),
        ("approaches.1.rank=0", "--set: 'approaches.1.rank' is 0, but must be a whole number ab"),
        ("kind.x=1", "--set kind.x reaches into 'kind', which is the text 'classify'"),
        ("seed=yes", "--set: 'seed' is true, but must be a number"),
        ("data=a.csv", "--set: 'data' must hold fields, but is the text 'a.csv'"),
        ("name=", "--set: 'name' is empty, but must be text"),
    ],
)
def test_wrong_overrides(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(written(tmp_path, WITH_APPROACHES), [change])
    assert said in str(caught.value)


def test_an_override_of_approaches_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="changes an approach, but the task lists none"):
        load_task(written(tmp_path, SOUND), ["approaches.0.rank=8"])


def test_overrides_of_a_dumped_task_leave_it_as_it_was() -> None:
    task = Task(
        kind="classify",
        data=Data(train="a.csv", max_rows=RowCaps(test=5)),
        approaches=(Majority(), Finetuned(rank=4)),
    )
    dumped = task.model_dump()
    changed = parse_task(dumped, ["approaches.1.rank=8", "data.max_rows.train=9"])
    assert changed.approaches == (Majority(), Finetuned(rank=8))
    assert changed.data.max_rows == RowCaps(train=9, test=5)
    assert dumped == task.model_dump()


def test_parsing_leaves_the_mapping_and_what_its_parts_share_alone() -> None:
    shared = {"use": "finetuned", "rank": 4}
    content = {"kind": "classify", "data": {"train": "a"}, "approaches": [shared, shared]}
    task = parse_task(content, ["approaches.0.rank=8", "data.train=b"])
    assert [approach.rank for approach in task.approaches] == [8, 4]
    assert content["data"] == {"train": "a"} and shared["rank"] == 4


# ── paths ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def places(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """The task file's folder, and another one to work in."""
    beside, here = tmp_path / "tasks", tmp_path / "here"
    for folder in (beside, here):
        (folder / "models" / "m").mkdir(parents=True)
    monkeypatch.chdir(here)
    return beside, here


def test_paths_are_looked_up_beside_the_task_file_then_here(places) -> None:
    beside, here = places
    for path in (beside / "both.csv", here / "both.csv", here / "here.csv", beside / "t.jinja"):
        path.write_text("x")
    (here / "minilm-l6").mkdir()
    task_file = beside / "task.yaml"
    task_file.write_text("""
kind: classify
data: {train: both.csv, validation: here.csv, test: nowhere.csv}
chat_template: t.jinja
trust_remote_code: [models/m]
output: out
approaches:
  - {use: finetuned, model: models/m}
  - {use: finetuned, model: minilm-l6}
""")
    task = load_task(os.path.relpath(task_file))
    assert task.data.train == str(beside / "both.csv")
    assert task.data.validation == str(here / "here.csv")
    assert task.data.test == "nowhere.csv"
    assert task.chat_template == str(beside / "t.jinja")
    assert task.approaches[0].model == str(beside / "models" / "m")
    assert task.trust_remote_code == (task.approaches[0].model,)
    assert task.approaches[1].model == "minilm-l6"  # a bare name is no path
    assert task.output == "out"


def test_a_path_given_by_set_is_looked_up_here_first(places) -> None:
    beside, here = places
    for folder in (beside, here):
        (folder / "both.csv").write_text("x")
    (beside / "task.yaml").write_text(SOUND)
    task = load_task(beside / "task.yaml", ["data.train=both.csv"])
    assert task.data.train == str(here / "both.csv")
    whole = load_task(beside / "task.yaml", ["data={train: both.csv}"])
    assert whole.data.train == str(here / "both.csv")


def test_sources_that_are_no_paths_stay_as_written(places) -> None:
    beside, _ = places
    (beside / "sample:pydocs").write_text("x")
    (beside / "task.yaml").write_text("kind: classify\ndata: {train: 'sample:pydocs'}\n")
    assert load_task(beside / "task.yaml").data.train == "sample:pydocs"


# ── near names, and whatever a file holds ────────────────────────────────────────────────────────


def test_near_names() -> None:
    assert near("Rnak", ["rank", "alpha"]) == "did you mean 'rank'"
    assert near("zzz", ["b", "a"]) == "it can be a, b"
    assert near("zzz", []) == "there is nothing to choose from"


PIECES = st.sampled_from(
    [
        "kind",
        "classify",
        "data",
        "train",
        "use",
        "approaches",
        "[",
        "]",
        "{",
        "}",
        "&a",
        "*a",
        "<<",
        "!!",
        "|",
        ">",
        '"',
        "'",
        "#",
        "%",
        "---",
        "1",
        "?",
        "null",
        "\\x",
        "\xe9",
        "1e400",
        ".nan",
        "0x",
        "1:30",
        "2024-02-30",
        "=",
        "\n",
        "  ",
        "- ",
        ": ",
        "\t",
        "!!float ",
        "!!int ",
        "!!bool ",
        "!!timestamp ",
        "!!set ",
        "!!omap ",
        "!!binary ",
        "\x85",
        "\ufeff",
    ]
)


@settings(max_examples=500, deadline=None)
@given(
    st.text(max_size=40)
    | st.binary(max_size=40)
    | st.lists(PIECES, max_size=25).map("".join)
    | st.lists(PIECES, max_size=12).map(lambda pieces: SOUND + "".join(pieces))
)
def test_any_file_is_a_task_or_one_sentence(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    try:
        assert isinstance(load_task(path), Task)
    except ConfigError as error:
        assert "\n" not in str(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=20) | st.lists(PIECES, max_size=8).map("".join), max_size=2))
def test_any_override_is_a_task_or_one_sentence(overrides: list[str]) -> None:
    content = yaml.safe_load(WITH_APPROACHES)
    try:
        assert isinstance(parse_task(content, overrides), Task)
    except ConfigError as error:
        assert "\n" not in str(error)
