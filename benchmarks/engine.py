"""Training against its peers, interleaved, in one run.

    ./run bench engine FOLDER [--rounds 5] [--only NAME …] [--peers PYTHON]

FOLDER is rasbt_instruct or gsm8k as published (benchmarks/engine/rounds.py). SmolLM2-135M, LoRA of
rank 16 on all linear layers, batches of 8 rows, the same rows for all. Every contender is a process
of its own that stays; they take turns, a round of 8 optimizer steps each, so that what else the
machine does meets all of them. The first round warms up and does not count.

The peers run in an environment of their own, with the versions in engine/peers.txt; without
--peers it is made in a temporary folder. Writes results/engine-NAME.json.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.engine.rounds import write_rounds  # noqa: E402
from benchmarks.engine.with_trainer import CONTENDERS as PEERS  # noqa: E402

from fitune.hardware import this_machine  # noqa: E402
from fitune.models.source import resolve_source  # noqa: E402

# contender → fitune's options that differ from its defaults
OURS: dict[str, dict[str, Any]] = {
    "fitune": {},
    "fitune, packing only": {"fused": False},
    "fitune, kernels only": {"packing": False},
    "fitune, neither": {"packing": False, "fused": False},
    "fitune fp32": {"dtype": "fp32"},
}


def main(arguments: Sequence[str]) -> None:
    parser = ArgumentParser(
        prog="./run bench engine", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[*OURS, *PEERS], metavar="NAME")
    parser.add_argument("--peers", type=Path, metavar="PYTHON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rounds.json"
        write_rounds(options.folder, options.rounds + 1, rows)
        python = options.peers or _peers_environment(Path(scratch) / "peers")
        model = resolve_source("smollm2-135m").location
        contenders = {
            name: _start(name, rows, python, model)
            for name in [*OURS, *PEERS]
            if name in options.only
        }
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        limits = []
        for number in range(options.rounds + 1):
            limits.append(matrix_limit())
            for name, process in contenders.items():
                found = _turn(process)
                if number:
                    rounds[name].append(found)
                print(
                    f"{number}: {name}: {found['tokens'] / found['seconds']:.0f} tokens/s",
                    flush=True,
                )
        for process in contenders.values():
            process.terminate()
    facts = _facts(rounds, statistics.median(limits))
    print(_table(facts))
    path = HERE / "results" / f"engine-{options.folder.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _peers_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-r", HERE / "engine" / "peers.txt"]
    subprocess.run([*install, "-c", HERE.parent / "constraints.txt"], check=True)
    return python


def _start(name: str, rows: Path, python: Path, model: str) -> subprocess.Popen[str]:
    if name in OURS:
        words = [f"{key}={json.dumps(value)}" for key, value in OURS[name].items()]
        command = [sys.executable, "-m", "benchmarks.engine.with_fitune", str(rows), *words]
    else:
        command = [str(python), str(HERE / "engine" / "with_trainer.py"), name, str(rows), model]
    return subprocess.Popen(
        command,
        cwd=HERE.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _turn(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("ROUND "):
            return json.loads(line[6:])
    raise SystemExit(f"a contender ended before its round did: {process.args}")


def matrix_limit() -> float:
    """FLOP/s of bf16 products of this model's shapes, 1,024 rows: the best of several, since the
    machine's limit is meant and not what else it does."""
    import torch

    best = 0.0
    for inputs, outputs in ((576, 3072), (1536, 576), (576, 960)):
        left = torch.randn(1024, inputs).bfloat16()
        right = torch.randn(outputs, inputs).bfloat16()
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(5):
                torch.mm(left, right.T)
            seconds = (time.perf_counter() - started) / 5
            best = max(best, 2 * 1024 * inputs * outputs / seconds)
    return best


def _facts(rounds: dict[str, list[dict[str, float]]], limit: float) -> dict[str, Any]:
    machine = this_machine()
    table = {}
    for name, each in rounds.items():
        speeds = [one["tokens"] / one["seconds"] for one in each]
        table[name] = {
            "tokens_per_second": statistics.median(speeds),
            "lowest": min(speeds),
            "highest": max(speeds),
            "losses": [one["loss"] for one in each],
            "peak_bytes": max(one["peak_bytes"] for one in each),
        }
    return {"cores": machine.cores, "cpu": machine.cpu, "matrix_limit": limit, "table": table}


def _table(facts: dict[str, Any]) -> str:
    ours = facts["table"].get("fitune", {}).get("tokens_per_second")
    lines = [
        f"bf16 matrix products, {facts['cores']} cores of {facts['cpu']}: "
        f"{facts['matrix_limit'] / 1e9:,.0f} GFLOP/s",
        "",
        "| | tokens/s | lowest–highest | fitune is | loss of the last round | peak, MiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in facts["table"].items():
        times = f"{ours / row['tokens_per_second']:.2f} ×" if ours else ""
        lines.append(
            f"| {name} | {row['tokens_per_second']:.0f} | {row['lowest']:.0f}–{row['highest']:.0f} "
            f"| {times} | {row['losses'][-1]:.3f} | {row['peak_bytes'] / 2**20:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
