"""The run folder on disk: names, locks, files that are whole or not there, and clear errors."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.errors import ConfigError, ResourceError, RunError
from fitune.runs import (
    Run,
    create_run,
    explain_damage,
    explain_os_errors,
    locked,
    open_run,
    read_json,
    read_jsonl,
    replaced_folder,
    write_json,
    write_jsonl,
    write_text,
)


def test_names_are_unique_and_count_on(tmp_path: Path) -> None:
    assert [create_run(tmp_path, "a").folder.name for _ in range(3)] == ["a-1", "a-2", "a-3"]
    assert create_run(tmp_path, "b").folder.name == "b-1"
    (tmp_path / "a-17").mkdir()
    (tmp_path / "a-²").mkdir()  # a digit to str.isdigit, and no number
    (tmp_path / "a-b-99").mkdir()  # of a task called a-b
    (tmp_path / "a-2").rmdir()
    assert create_run(tmp_path, "a").folder.name == "a-18"
    assert create_run(tmp_path, "a-b").folder.name == "a-b-100"


def test_two_that_start_at_once_get_two_folders(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))  # neither saw the other's folder
    assert create_run(tmp_path, "a") != create_run(tmp_path, "a")


def test_only_runs_are_opened(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        open_run(tmp_path / "none")
    with pytest.raises(RunError, match=r"no task\.json in it"):
        open_run(tmp_path)
    (tmp_path / "task.json").write_text("{}")
    assert open_run(tmp_path) == Run(tmp_path)


def test_a_lock_holds_against_others_and_ends_with_its_process(tmp_path: Path) -> None:
    run = Run(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from fitune.runs import Run, locked\n"
        f"with locked(Run(Path({str(tmp_path)!r}))):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is working"), locked(run):
            pass
    finally:
        process.kill()
        process.communicate()
    with locked(run):
        pass
    with locked(run):
        pass


def test_what_goes_wrong_inside_a_lock_is_not_about_the_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(Run(tmp_path)):
        raise FileNotFoundError("something else")


def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path: Path, monkeypatch: Any) -> None:
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(Run(tmp_path)):
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(records=st.lists(JSON, max_size=5))
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, records: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("json")
    write_json(folder / "deep" / "a.json", records)
    write_jsonl(folder / "a.jsonl", records)
    assert read_json(folder / "deep" / "a.json") == records
    assert read_jsonl(folder / "a.jsonl") == records


def test_a_line_cut_off_by_a_crash_is_left_out_and_one_before_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(RunError, match="cannot be read"):
        read_jsonl(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(RunError, match="cannot be read"):
        read_jsonl(path)


@pytest.mark.parametrize("read", [read_json, read_jsonl])
def test_a_missing_file_is_a_damaged_run(tmp_path: Path, read: Any) -> None:
    with pytest.raises(RunError, match="is missing from its run"):
        read(tmp_path / "a.json")
    with pytest.raises(RunError, match="cannot be read"):
        read(tmp_path)  # a folder


def test_a_failed_write_leaves_the_old_text_and_nothing_else(
    tmp_path: Path, monkeypatch: Any
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.json"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="the disk is full; free some space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    with (
        pytest.raises(ResourceError, match="the disk is full"),
        replaced_folder(tmp_path / "m") as m,
    ):
        (m / "weights").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_only_when_all_went_well(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replaced_folder(folder) as partial:
        (partial / "a").write_text("1")
        assert not folder.exists()
    with pytest.raises(ZeroDivisionError), replaced_folder(folder) as partial:
        (partial / "a").write_text("2")
        raise ZeroDivisionError
    assert (folder / "a").read_text() == "1"
    with replaced_folder(folder) as partial:
        (partial / "b").write_text("3")
    assert [p.name for p in folder.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission is denied"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "a file stands where a folder should be"),
        (errno.EEXIST, "a file stands where a folder should be"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_what_the_system_refuses_is_said_with_the_path(number: int, said: str) -> None:
    with pytest.raises(ResourceError, match=said) as caught, explain_os_errors(Path("/x/y")):
        raise OSError(number, os.strerror(number))
    assert "'/x/y'" in str(caught.value)


def test_safetensors_says_full_disk_in_its_own_way() -> None:
    from safetensors import SafetensorError

    with pytest.raises(ResourceError, match="disk is full"), explain_os_errors(Path("a")):
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
    with pytest.raises(SafetensorError), explain_os_errors(Path("a")):
        raise SafetensorError("Error while deserializing header")


@pytest.mark.parametrize(
    "broken", [lambda: {}["a"], lambda: [][0], lambda: None.b, lambda: 1 + "1", lambda: int("x")]
)
def test_damage_is_said_with_the_path(broken: Any) -> None:
    with pytest.raises(RunError, match="'x' is damaged"), explain_damage(Path("x")):
        broken()


def test_other_errors_are_not_called_damage() -> None:
    with pytest.raises(ConfigError), explain_damage(Path("x")):
        raise ConfigError("a", fix="b")
    with pytest.raises(ZeroDivisionError), explain_damage(Path("x")):
        1 / 0  # noqa: B018


def test_text_of_every_kind_is_written_as_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "naïve 日本 🙂"})
    assert json.loads((tmp_path / "a.json").read_bytes().decode("utf-8"))["text"] == "naïve 日本 🙂"
    assert "日本" in (tmp_path / "a.json").read_text("utf-8")
