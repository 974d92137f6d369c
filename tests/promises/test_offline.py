"""Promise: nothing touches the network unless a Hub id asks for it.

A process of its own, in which the libraries are not told to stay offline and every connection is
counted and refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

GUARDED = """
import json, os, socket, sys, traceback

calls, tried = json.loads(sys.argv[1]), []


def refuse(*where, **_):
    tried.append("".join(traceback.format_stack()[-40:]) + repr(where))
    if "--once" in sys.argv:  # the libraries try again for half a minute
        print(json.dumps({"codes": [], "tried": tried}), flush=True)
        os._exit(0)
    raise OSError("no network here")


for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse

from fitune.cli import main

codes = [main(words) for words in calls]
print(json.dumps({"codes": codes, "tried": tried}))
"""


def guarded(folder: Path, *calls: list[str], once: bool = False) -> dict[str, Any]:
    """Exit codes of calls of fitune, and what they tried to reach; `once`: to the first try."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, json.dumps(calls), *(["--once"] if once else [])],
        capture_output=True,
        text=True,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in names}
        | {"HF_HOME": str(folder / "hf")},
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["err"] = done.stderr
    return result


def test_no_verb_reaches_out(
    tmp_path: Path,
    intents: Path,
    tiny_encoder: Path,
    tiny_native_encoder: Path,
    tiny_decoder: Path,
) -> None:
    def task(name: str, kind: str, data: dict[str, Any], *approaches: dict[str, Any]) -> str:
        given = {"name": name, "kind": kind, "data": data, "approaches": list(approaches)}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(given))
        return f"{name}.yaml"

    decoder = {"model": str(tiny_decoder)}
    once = {"use": "finetuned", "epochs": 0.2}
    mine = task(
        "mine",
        "classify",
        {"train": str(intents)},
        {"use": "majority"},
        {"use": "linear"},
        {"use": "prompt", **decoder},
        {"use": "few-shot", **decoder},
        {**once, "name": "pooled", "model": str(tiny_encoder)},
        {**once, "name": "native", "model": str(tiny_native_encoder), "method": "lora"},
        {**once, "name": "decoder", **decoder},
    )
    sample = task(
        "sample",
        "generate",
        {"train": "sample:pydocs", "max_rows": {"train": 20, "validation": 5, "test": 5}}
        | {"too_long": "truncate"},
        {"use": "prompt", **decoder},
        {**once, **decoder},
    )
    result = guarded(
        tmp_path,
        ["ladder", mine, "--quiet"],
        ["ladder", sample, "--set", "max_answer_tokens=4", "--quiet"],
        *[
            ["evaluate", "runs/mine-1", str(intents), "--rung", rung, "--quiet"]
            for rung in ("linear", "pooled", "native", "decoder", "prompt")
        ],
        ["check", sample, "--show", "1"],
        ["check", str(intents)],
        ["doctor"],
        # A Hub id that is not allowed to be fetched is looked for in the local cache only.
        ["ladder", mine, "--set", "approaches.2.model=nobody/nothing"],
    )
    assert result["codes"] == [0] * 10 + [2], result["err"]
    assert result["tried"] == [], "\n\n".join(result["tried"])


def test_the_guard_would_notice(tmp_path: Path, intents: Path) -> None:
    task = {
        "kind": "classify",
        "data": {"train": str(intents)},
        "approaches": [{"use": "prompt", "model": "nobody/nothing"}],
        "download": True,
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    result = guarded(tmp_path, ["ladder", "task.yaml"], once=True)
    assert result["tried"], "a Hub id with download: true does ask the network"


@pytest.mark.parametrize("verb", ["--help", "--version"])
def test_help_needs_nothing(tmp_path: Path, verb: str) -> None:
    assert guarded(tmp_path, [verb])["tried"] == []
