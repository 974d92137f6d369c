"""Imports point one way, as the design says; and starting is fast because heavy ones are late."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "fitune"

# A room may import from lower tiers, and within itself; rooms of one tier are strangers.
TIERS = [
    {"errors", "names", "sizes", "config", "taskproblems", "taskfile"},
    {"malloc", "collector"},
    {"runs", "hardware", "devices", "signals"},
    {"evaluation", "models", "data", "numerics"},
    {"quantization"},
    {"training"},
    {"memory", "language_models", "retrieval", "inference"},
    {"approaches"},
    {"ladder", "release"},
    {"report"},
    {
        *("results", "estimates", "entries", "machine", "saved", "resuming", "checking"),
        *("targets", "questions", "fitting", "weighing", "estimating", "profiling"),
        *("corpora", "modelling", "climbing", "api"),
    },
    {"cli"},
]
TIER_OF = {room: tier for tier, rooms in enumerate(TIERS) for room in rooms}
# Two tiers are one room each, of files that build on each other in this order.
ORDERED = [
    ["errors", "names", "sizes", "config", "taskproblems", "taskfile"],
    [
        *("results", "estimates", "entries", "machine", "saved", "resuming", "checking"),
        *("targets", "questions", "fitting", "weighing", "estimating", "profiling"),
        *("corpora", "modelling", "climbing", "api"),
    ],
]


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands: at the top, in a function, under
    TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *filter(None, [base])])
            if base == "fitune":
                for alias in node.names:
                    yield node.lineno, f"fitune.{alias.name}"
            else:
                yield node.lineno, base


def complaint(room: str, other: str) -> str | None:
    """Why `room` must not import `other`; None if it may."""
    if room == other:
        return None
    if other not in TIER_OF:
        return f"'{other}' has no tier"
    for files in ORDERED:
        if room in files and other in files:
            return None if files.index(other) < files.index(room) else "points upwards"
    if TIER_OF[other] == TIER_OF[room]:
        return "rooms of one tier do not import each other"
    return "points upwards" if TIER_OF[other] > TIER_OF[room] else None


def violations(source: str, module: str) -> list[str]:
    """What is wrong with the imports of `module`, e.g. ``fitune.data.rows``."""
    parts = module.split(".")
    room, package = parts[1], module.rpartition(".")[0]
    found = []
    for line, name in imported(source, package):
        if name.split(".")[0] == "fitune" and "." in name:
            why = complaint(room, name.split(".")[1])
            if why:
                found.append(f"{module}:{line} imports {name}: {why}")
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        found.append((".".join(parts), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_point_downwards(module: str, path: Path) -> None:
    room = module.split(".")[1]
    if room in ("__init__", "__main__"):  # the package's face: api and cli behind it
        return
    assert room in TIER_OF, f"{path} is in no room of the design"
    assert violations(path.read_text("utf-8"), module) == []


@pytest.mark.parametrize(
    ("source", "module", "allowed"),
    [
        ("import torch", "fitune.data.rows", True),
        ("from fitune.errors import DataError", "fitune.data.rows", True),
        ("from fitune.data.rows import Rows", "fitune.data.splits", True),
        ("from . import rows", "fitune.data.splits", True),
        ("from fitune import api", "fitune.cli.ladder", True),
        ("from fitune import cli", "fitune.api", False),
        ("import fitune.models.load", "fitune.data.rows", False),
        ("from ..models import load", "fitune.data.rows", False),
        ("def f():\n    from fitune.ladder.rung import Rung", "fitune.training.loop", False),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fitune.report.page",
            "fitune.ladder.rung",
            False,
        ),
        ("from fitune.utils import x", "fitune.api", False),
        ("from fitune.config import Task", "fitune.errors", False),
        ("from fitune import api", "fitune.results", False),
        ("from fitune.results import LadderResult", "fitune.api", True),
    ],
)
def test_the_test_itself_sees_every_kind_of_import(source, module, allowed) -> None:
    assert (violations(source, module) == []) == allowed


def seconds(*words: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize(
    "words", [("-c", "import fitune"), ("-m", "fitune", "--help")], ids=["import", "help"]
)
def test_starting_is_fast(words: tuple[str, ...]) -> None:
    """Under 0.5 s; the best of several, since other work shares the machine."""
    best = min(seconds(*words) for _ in range(5))
    assert best < 0.5


HEAVY = {"torch", "transformers", "sklearn", "scipy", "peft", "datasets", "pyarrow", "pydantic"}


@pytest.mark.parametrize(
    "code",
    [
        "import fitune",
        "import fitune; dir(fitune)",
        "from fitune.cli import main; main(['--help'])",
        "from fitune.cli import main; main(['ladder', '--help'])",
        "from fitune.cli import main; main(['ladder'])",
    ],
)
def test_starting_loads_nothing_heavy(code: str) -> None:
    code += "; import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stderr.split())
