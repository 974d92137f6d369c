"""How a call of `fitune` ends: exit codes, one sentence for each mistake, no traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fitune.cli import VERBS, main
from fitune.errors import DataError, Interrupted


def test_help_lists_the_verbs_in_order(capsys) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"fitune {verb} ") for verb in VERBS]
    assert places == sorted(places)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_module_and_help(verb: str, capsys) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: fitune {verb}" in text
    assert "--json" in text and "--quiet" in text


def test_version(capsys) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fitune {version('fitune')}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lader"], "there is no verb 'lader'; did you mean 'ladder'."),
        (["task.yaml"], "a verb is missing; did you mean `fitune ladder task.yaml`."),
        (["--versoin"], "there is no option '--versoin'; did you mean '--version'."),
        (["\x1b[31m"], "there is no verb '�[31m'; it can be check, "),
        (["ladder"], "you did not give TASK.yaml; see `fitune ladder --help`."),
        (["ladder", "--plan", "--resume", "r"], "you did not give TASK.yaml; see `fitune ladder"),
        (["tune"], "you did not give TASK.yaml; see `fitune tune --help`."),
        (["check"], "you did not give TASK.yaml|DATA; see `fitune check --help`."),
        (["ladder", "a", "b"], "'b' is one argument too many; see `fitune ladder --help`."),
        (["ladder", "a", "--jso"], "`fitune ladder` has no option '--jso'; did you mean '--json'"),
        (["ladder", "a", "--set"], "argument --set: expected one argument; see"),
        (["check", "a", "--show", "0"], "argument --show: '0' is not a whole number above 0; see"),
        (["check", "a", "--show", "x"], "argument --show: 'x' is not a whole number above 0; see"),
        (["check", "a", "--kind", "tag"], "argument --kind: invalid choice: 'tag'"),
        (["evaluate", "run"], "you did not give ROWS; see `fitune evaluate --help`."),
    ],
)
def test_mistakes_in_the_command_line(words: list[str], said: str, capsys) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {said}")
    assert captured.err.count("\n") == 1


def test_a_users_mistake_is_one_sentence(api, capsys) -> None:
    api.raises = DataError("train.csv holds no rows", fix="give it some")
    assert main(["ladder", "task.yaml"]) == 2
    assert capsys.readouterr().err == "error: train.csv holds no rows; give it some.\n"


def test_interruption_says_how_to_go_on(api, capsys) -> None:
    api.raises = Interrupted("fitune ladder --resume runs/task-1")
    assert main(["ladder", "task.yaml"]) == 130
    assert "Go on with: fitune ladder --resume runs/task-1" in capsys.readouterr().err
    api.raises = KeyboardInterrupt()
    assert main(["check", "task.yaml"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left", "/x/y"), "no space is left on the disk: /x/y; "),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "permission is denied: /x; "),
        (OSError(errno.EROFS, "Read-only"), "the file system is read-only; choose"),
        (MemoryError(), "the machine has not enough free memory for this; lower"),
        (OutOfMemoryError("CUDA out of memory"), "the machine has not enough free memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't"), "the machine has not enough"),
    ],
)
def test_what_the_machine_refuses(api, error: BaseException, said: str, capsys) -> None:
    api.raises = error
    assert main(["ladder", "task.yaml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_a_bug_is_called_a_bug_and_its_traceback_is_kept(
    api, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    api.raises = ZeroDivisionError("division\nby zero")
    assert main(["ladder", "task.yaml"]) == 1
    err = capsys.readouterr().err
    (file,) = tmp_path.iterdir()
    assert err.startswith("error: this is a bug in fitune (ZeroDivisionError: division)")
    assert str(file) in err and err.count("\n") == 1
    kept = file.read_text()
    assert kept.startswith("fitune ladder task.yaml\n") and "Traceback" in kept
    assert "by zero" in kept


def test_a_bug_on_a_full_disk_still_shows_its_traceback(api, capsys, monkeypatch) -> None:
    def refuse(**_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    api.raises = ZeroDivisionError("x")
    assert main(["ladder", "task.yaml"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "report it with the text above" in err


def test_the_debug_switch_shows_the_traceback(api, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FITUNE_DEBUG", "1")
    api.raises = DataError("no rows", fix="give some")
    assert main(["ladder", "task.yaml"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_python_m_and_a_reader_that_leaves() -> None:
    """`fitune check --schema | head -1`: no complaint on stderr, and the shell's own code."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "fitune", "check", "--schema"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_without_unicode_is_no_reason_to_fail() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fitune", "check", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "?learned?" in done.stdout
