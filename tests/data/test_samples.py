"""The sample is real text of this Python, read without importing it."""

import ast
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from fitune.data import samples
from fitune.data.samples import MAX_LINES, MIN_ROWS, MIN_WORDS, pydocs
from fitune.errors import ResourceError

STDLIB = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture(scope="module")
def classify():
    return pydocs("classify")


@pytest.fixture(scope="module")
def generate():
    return pydocs("generate")


def test_size_is_as_the_guide_says(classify, generate):
    counts = Counter(classify.answers)
    assert min(counts.values()) >= MIN_ROWS - 1 and {"tkinter", "asyncio", "logging"} <= set(counts)
    assert 15 <= len(counts) <= 40 and 2_000 <= len(classify) <= 6_000
    if sys.version_info[:2] == (3, 11):
        assert len(counts) == pytest.approx(26, abs=2) and len(classify) == pytest.approx(
            3_700, abs=150
        )
    assert len(generate) > 1_000


def test_texts_are_the_docstrings_that_inspect_gives(classify):
    import inspect
    import pathlib
    import threading

    texts = {row.text: row.answer for row in classify}
    assert texts[inspect.getdoc(threading.Thread.join)] == "threading"
    assert texts[inspect.getdoc(inspect.getsource)] == "inspect"
    if "pathlib" in classify.labels:
        assert texts[inspect.getdoc(pathlib.Path.rglob)] == "pathlib"


def test_rows_are_distinct_public_and_not_from_tests(classify, generate):
    for rows in (classify, generate):
        assert len({row.key for row in rows}) == len(rows)
        for row in rows:
            name, _, line = row.source.rpartition(":")
            assert (STDLIB / name).is_file() and int(line) > 0
            parts = Path(name).parts
            assert not {"test", "tests", "idle_test", "site-packages"} & set(parts)
    assert all(len(row.text.split()) >= MIN_WORDS for row in classify)
    for row in classify:
        assert row.source.startswith((f"{row.answer}.py:", f"{row.answer}/"))


def test_functions_are_shown_without_the_docstring_that_is_asked_for(generate):
    for row in generate:
        assert "\n" not in row.answer and len(row.answer.split()) >= 3
        assert len(row.text.splitlines()) <= MAX_LINES
        (function,) = ast.parse(row.text).body  # the source is still valid Python
        assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        assert not function.name.startswith("_")
        docstring = ast.get_docstring(function)
        assert docstring is None or docstring.splitlines()[0].strip() != row.answer


def test_nothing_is_imported(tmp_path):
    import subprocess

    code = (
        "import sys; from fitune.data.samples import pydocs; before = set(sys.modules);"
        "pydocs('classify'); new = set(sys.modules) - before;"
        "print(sorted(n for n in new if n.split('.')[0] in ('tkinter', 'turtle', 'imaplib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rule_on_a_small_library(tmp_path, monkeypatch):
    long = "Explain what this one does"
    body = "".join(
        f'def f{i}():\n    """{long}, number {i}."""\n    return {i}\n' for i in range(50)
    )
    (tmp_path / "good.py").write_text(
        body
        + f'def _private():\n    """{long} in private."""\n'
        + f'class _Hidden:\n    def f(self):\n        """{long} when hidden."""\n'
        + f'class Open:\n    def again(self):\n        """{long}, number 3."""\n'
        + f'    def both(self):\n        """{long} in both."""\n        return 1\n'
        + 'def short():\n    """Too short."""\n'
    )
    (tmp_path / "other.py").write_text(
        body.replace("number", "index") + f'def g():\n    """{long} in both."""\n'
    )
    (tmp_path / "few.py").write_text(f'def f():\n    """{long} alone."""\n')
    (tmp_path / "_private.py").write_text(body.replace("number", "secret"))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_x.py").write_text(body.replace("number", "test"))
    (tmp_path / "broken.py").write_text(body.replace("number", "broken") + "def (:\n")
    monkeypatch.setattr(samples.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    rows = pydocs("classify")
    assert Counter(rows.answers) == {"good": 50, "other": 50}
    assert all("number" in row.text or "index" in row.text for row in rows)
    pairs = pydocs("generate")
    assert pairs[0].text == "def f0():\n    return 0"
    assert pairs[0].answer == f"{long}, number 0."


def test_python_without_sources_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(samples.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(ResourceError, match="sample:pydocs"):
        pydocs("classify")
