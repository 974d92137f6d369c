"""The offline sample: texts that every Python installation carries.

Knows where the running Python keeps its standard library and how to read its source with `ast`;
imports none of it. Knows nothing of files given by the user.
"""

from __future__ import annotations

import ast
import gc
import re
import sysconfig
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fitune.data.rows import Row, Rows
from fitune.errors import ResourceError

MIN_WORDS = 5
"""Shorter docstrings ("Return self.") say nothing of their module."""

MIN_ROWS = 45
"""Labels with fewer docstrings are left out: a fifth of 45 tests a label with nine rows."""

MAX_LINES = 30
"""Longer functions are left out of the generation pairs: with the prompt they pass 512 tokens."""

_TESTS = {"test", "tests", "idle_test"}
_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_DEFINITION = re.compile(rb"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+[A-Za-z]", re.MULTILINE)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class _Documented:
    """A public function or class with a docstring.

    Holds text and not the syntax tree, so that one tree at a time is alive.
    """

    module: str
    docstring: str
    code: str | None
    source: str


def pydocs(kind: str) -> Rows:
    """Docstrings of the running Python's standard library.

    For `classify`: the docstring of each public function, method and class; its label is the
    top-level module. Docstrings of fewer than `MIN_WORDS` words, repeated ones (inherited, mostly)
    and modules with fewer than `MIN_ROWS` are left out. For `generate`, from the same modules: the
    source of each function of at most `MAX_LINES` lines without its docstring, and the
    docstring's first line where that is a paragraph of its own.

    Args:
        kind: the task's, `classify` or `generate`.

    Raises:
        ResourceError: this Python comes without the source of its library.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, list[_Documented]] = {}
    owner: dict[str, set[str]] = defaultdict(set)
    for module, files in _modules(root).items():
        # A module with too few definitions is not worth the time to parse.
        if sum(len(_DEFINITION.findall(code)) for _, code in files) < MIN_ROWS:
            continue
        with _no_collection():
            found[module] = [i for name, code in files for i in _documented(module, name, code)]
        for item in found[module]:
            owner[item.docstring].add(module)
    rows: list[Row] = []
    for items in found.values():
        # The same words in two modules have no one label; within a module the first is kept.
        own = {i.docstring: i for i in reversed(items) if len(owner[i.docstring]) == 1}
        if len(own) >= MIN_ROWS:
            kept = list(own.values())[::-1]
            rows += _labelled(kept) if kind == "classify" else _summarised(kept)
    if not rows:
        raise ResourceError(
            f"sample:pydocs finds no source of the standard library under {root}",
            fix="install Python with its library as source, or name a file of your own",
        )
    return Rows(tuple(_distinct(rows)))


SAMPLES: dict[str, Callable[[str], Rows]] = {"pydocs": pydocs}


def _labelled(items: list[_Documented]) -> list[Row]:
    return [Row(item.docstring, item.module, source=item.source) for item in items]


def _summarised(items: list[_Documented]) -> list[Row]:
    rows = []
    for item in items:
        lines = item.docstring.split("\n")
        whole = len(lines) == 1 or not lines[1].strip()
        if whole and len(lines[0].split()) >= 3 and item.code:
            rows.append(Row(item.code, lines[0].strip(), source=item.source))
    return rows


def _without_docstring(node: _Function | ast.ClassDef, text: list[str]) -> str | None:
    """The function's source; None for classes, long functions, and those with no body left.

    Args:
        text: the lines of its file.
    """
    if isinstance(node, ast.ClassDef) or len(node.body) < 2:
        return None
    first, second = node.body[0], node.body[1]
    if second.lineno <= (first.end_lineno or 0) or first.lineno == node.lineno:
        return None  # docstring and code share a line
    begin = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
    lines = [
        *text[begin - 1 : first.lineno - 1],
        *text[first.end_lineno or 0 : node.end_lineno],
    ]
    if len(lines) > MAX_LINES:
        return None
    shown = textwrap.dedent("\n".join(line.rstrip() for line in lines)).strip("\n")
    return None if shown[0].isspace() else shown  # a line further left than the function itself


def _distinct(rows: list[Row]) -> Iterator[Row]:
    seen: set[str] = set()
    for row in rows:
        if row.key not in seen:
            seen.add(row.key)
            yield row


def _modules(root: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Public top-level module → (path below `root`, source) of its files, sorted."""
    modules: dict[str, list[tuple[str, bytes]]] = {}
    for path in sorted(root.iterdir()):
        name = path.stem
        if name.startswith("_") or path.name in _TESTS | _NOT_LIBRARY:
            continue
        if path.suffix == ".py":
            files = [path]
        elif path.is_dir() and name.isidentifier():
            files = [
                file
                for file in sorted(path.rglob("*.py"))
                if not (_TESTS | _NOT_LIBRARY) & set(file.relative_to(path).parts)
            ]
        else:
            continue
        read = [(file.relative_to(root).as_posix(), file.read_bytes()) for file in files]
        if read:
            modules[name] = read
    return modules


@contextmanager
def _no_collection() -> Iterator[None]:
    """Parsing allocates millions of objects, none of them garbage: the collector, set off by their
    number and walking all that torch has loaded, would take longer than the parser."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _documented(module: str, name: str, code: bytes) -> Iterator[_Documented]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in the library's own strings
        try:
            text = code.decode()
            tree = ast.parse(code)
        except (SyntaxError, ValueError):  # a template, or a file kept broken for tests
            return
    lines = text.splitlines()
    for node in _public(tree.body):
        docstring = (ast.get_docstring(node) or "").strip()
        if len(docstring.split()) >= MIN_WORDS:
            source = f"{name}:{node.lineno}"
            yield _Documented(module, docstring, _without_docstring(node, lines), source)


def _public(body: list[ast.stmt]) -> Iterator[_Function | ast.ClassDef]:
    """Definitions at the top of a module or class, also under `if` and `try`; not within
    functions, and nothing below a private name."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name.startswith("_"):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)
        elif isinstance(node, ast.If):
            yield from _public(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _public(node.body + handlers + node.orelse)
