"""Names → functions: the visible tables, and a user's own modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fitune.errors import ConfigError
from fitune.names import import_object, lookup

TABLE = {"adamw": dict, "sgd": list, "late": "json:loads"}


def test_a_table_holds_objects_or_says_where_they_are() -> None:
    import json

    assert lookup("adamw", TABLE, "optimizer") is dict
    assert lookup("late", TABLE, "optimizer") is json.loads
    assert lookup("json:dumps", TABLE, "optimizer") is json.dumps


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adam", "there is no optimizer 'adam'; did you mean 'adamw'? use one of adamw, sgd, late"),
        ("zzz", "there is no optimizer 'zzz'; use one of adamw, sgd, late, or your own as"),
        ("json:lods", "module 'json' has no 'lods'; did you mean 'loads'"),
        ("json:", "module 'json' has no ''; check the spelling"),
        (":loads", "optimizer ':loads' cannot be imported (ValueError: Empty module name)"),
        ("no_such_module:f", "make 'import no_such_module' work in this Python first"),
        ("sys:maxsize", "is 9223372036854775807, which is neither a class nor a function"),
    ],
)
def test_what_is_not_there(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lookup(name, TABLE, "optimizer")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "code", ["1 / 0", "def f(:", "raise SystemExit(0)", "import no_such_thing"]
)
def test_modules_that_do_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "broken_module_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be imported \(") as caught:
        import_object("broken_module_of_mine:f", "metric")
    assert "\n" not in str(caught.value)


def test_the_working_directory_counts_and_the_path_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_of_mine.py").write_text("def score(p, r):\n    return 0.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = list(sys.path)
    assert import_object("module_of_mine:score", "metric")([], []) == 0.5
    assert sys.path == before
