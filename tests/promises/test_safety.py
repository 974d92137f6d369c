"""Promise: no pickle anywhere, no code of others run unless the user names it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "fitune"

# Modules that can run what they read.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "torch.load", "torch.save", "numpy.load", "np.load", "os.system"}
YAML = {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source: str) -> Iterator[str]:
    """What in `source` could run foreign code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names = [module, *(f"{module}.{name}" for name in names)]
            for name in names:
                if name.split(".")[0] in MODULES or name in CALLS | YAML:
                    yield f"line {node.lineno} imports {name}"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            keywords = {k.arg: k.value for k in node.keywords}
            if name in CALLS and not (
                name in ("np.load", "numpy.load") and _is(keywords.get("allow_pickle"), False)
            ):
                yield f"line {node.lineno} calls {name}"
            if name in YAML and not (
                name == "yaml.load" and dotted(keywords.get("Loader", node)) == "_Loader"
            ):
                yield f"line {node.lineno} calls {name}"
            for keyword in ("trust_remote_code", "shell", "allow_pickle"):
                if _is(keywords.get(keyword), True):
                    yield f"line {node.lineno} passes {keyword}=True"
            if keywords.get("weights_only") is not None and _is(keywords["weights_only"], False):
                yield f"line {node.lineno} passes weights_only=False"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                named = isinstance(key, ast.Constant) and key.value == "trust_remote_code"
                if named and _is(value, True):
                    yield f"line {node.lineno} sets trust_remote_code to True"


def _is(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


SOURCES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(SRC)) for p in SOURCES])
def test_nothing_runs_foreign_code(path: Path) -> None:
    assert list(dangers(path.read_text("utf-8"))) == []


def test_the_task_file_loader_is_a_safe_one() -> None:
    import yaml

    from fitune.taskfile import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import torch\n    torch.load('x')",
        "from torch import load",
        "eval('1')",
        "exec('1')",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "options = {'trust_remote_code': True}",
        "np.load('x.npy')",
        "np.load('x.npy', allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "load(path, weights_only=False)",
    ],
)
def test_the_test_itself_sees_each_danger(source: str) -> None:
    assert list(dangers(source))


def test_the_test_itself_lets_safe_code_pass() -> None:
    safe = "model.eval(); np.load('x', allow_pickle=False); f(trust_remote_code=trusted)"
    assert list(dangers(safe)) == []
