"""Training against its peers, interleaved, in one run.

    ./run bench engine FOLDER [--rounds 5] [--only NAME …] [--peers PYTHON]

FOLDER is rasbt_instruct, gsm8k or banking77 as published (benchmarks/engine/rounds.py). For the
first two: SmolLM2-135M, LoRA of rank 16 on all linear layers, rounds of 8 batches of 8 rows; for
banking77: all of MiniLM, rounds of 32 batches of 32. The same rows for all. Every contender is a
process of its own that stays; they take turns, a round each, so that what else the machine does
meets all of them. The first round warms up and does not count. "Of the matrix limit": FLOPs that
the rows need (fitune.training.flops; padding and recomputation do not count, and what fitune
computes once for all rows of a batch counts once), against the fastest bf16 product that is
measured between the rounds.

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
import venv
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.engine import encoder_with_trainer, with_trainer  # noqa: E402
from benchmarks.engine.needed import classify_flops_per_token, flops_per_token  # noqa: E402
from benchmarks.engine.rounds import write_classify_rounds, write_rounds  # noqa: E402

from fitune.config import Finetuned  # noqa: E402
from fitune.hardware import this_machine  # noqa: E402
from fitune.models.source import resolve_source  # noqa: E402


@dataclass(frozen=True)
class Contest:
    """Who trains what.

    Attributes:
        model: of the catalogue.
        method: of fine-tuning.
        ours: contender → fitune's options that differ from its defaults.
        peers: the contenders that `peer` knows.
        own, peer: the scripts (in engine/) that train with fitune, and with others.
        rounds: writes the rows.
        needed: FLOPs of a token.
        shapes: of the model's matrix products.
    """

    model: str
    method: str
    ours: dict[str, dict[str, Any]]
    peers: tuple[str, ...]
    own: str
    peer: str
    rounds: Callable[[Path, int, Path], None]
    needed: Callable[[Path, Finetuned], float]
    shapes: tuple[tuple[int, int, int], ...]


DECODER = Contest(
    model="smollm2-135m",
    method="lora",
    ours={
        "fitune": {},
        "fitune, nothing shared": {"shared_prefix": False},
        "fitune, packing only": {"shared_prefix": False, "fused": False},
        "fitune, kernels only": {"packing": False},
        "fitune, neither": {"packing": False, "fused": False},
        "fitune fp32": {"dtype": "fp32"},
    },
    peers=tuple(with_trainer.CONTENDERS),
    own="with_fitune",
    peer="with_trainer",
    rounds=write_rounds,
    needed=flops_per_token,
    shapes=((1024, 576, 3072), (1024, 1536, 576), (1024, 576, 960)),
)

ENCODER = Contest(
    model="minilm-l6",
    method="full",
    ours={"fitune": {}, "fitune fp32": {"dtype": "fp32"}},
    peers=tuple(encoder_with_trainer.CONTENDERS),
    own="encoder_with_fitune",
    peer="encoder_with_trainer",
    rounds=write_classify_rounds,
    needed=classify_flops_per_token,
    shapes=((1024, 384, 1536), (1024, 1536, 384), (1024, 384, 384)),
)

CONTESTS = {"rasbt_instruct": DECODER, "gsm8k": DECODER, "banking77": ENCODER}


def main(arguments: Sequence[str]) -> None:
    parser = ArgumentParser(
        prog="./run bench engine", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--peers", type=Path, metavar="PYTHON")
    options = parser.parse_args(arguments)
    contest = CONTESTS[options.folder.name]
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rounds.json"
        contest.rounds(options.folder, options.rounds + 1, rows)
        needed = _needed(contest, rows)
        python = options.peers or _peers_environment(Path(scratch) / "peers")
        contenders = {
            name: _start(contest, name, rows, python)
            for name in [*contest.ours, *contest.peers]
            if name in (options.only or [name])
        }
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        limits = []
        for number in range(options.rounds + 1):
            limits.append(_limit(contest))
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
    facts = _facts(rounds, statistics.median(limits), needed)
    print(_table(facts))
    path = HERE / "results" / f"engine-{options.folder.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _needed(contest: Contest, rows: Path) -> dict[str, float]:
    """Contender → FLOPs of a token."""
    apart = contest.needed(rows, Finetuned(method=contest.method, shared_prefix=False))
    found = dict.fromkeys([*contest.ours, *contest.peers], apart)
    for name, changes in contest.ours.items():
        options = Finetuned(method=contest.method, **changes)
        if options.packing and options.shared_prefix:
            found[name] = contest.needed(rows, options)
    return found


def _peers_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-r", HERE / "engine" / "peers.txt"]
    subprocess.run([*install, "-c", HERE.parent / "constraints.txt"], check=True)
    return python


def _start(contest: Contest, name: str, rows: Path, python: Path) -> subprocess.Popen[str]:
    if name in contest.ours:
        words = [f"{key}={json.dumps(value)}" for key, value in contest.ours[name].items()]
        command = [sys.executable, "-m", f"benchmarks.engine.{contest.own}", str(rows), *words]
    else:
        script = HERE / "engine" / f"{contest.peer}.py"
        model = resolve_source(contest.model).location
        command = [str(python), str(script), name, str(rows), model]
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


def _limit(contest: Contest) -> float:
    """FLOP/s of bf16 products of the model's shapes, 1,024 rows."""
    import torch

    from fitune.training.matrix_limit import matrix_limit

    return matrix_limit(torch.bfloat16, shapes=contest.shapes).flops_per_second


def _facts(
    rounds: dict[str, list[dict[str, float]]], limit: float, needed: dict[str, float]
) -> dict[str, Any]:
    machine = this_machine()
    table = {}
    for name, each in rounds.items():
        speeds = [one["tokens"] / one["seconds"] for one in each]
        speed = statistics.median(speeds)
        table[name] = {
            "tokens_per_second": speed,
            "flops_per_token": needed[name],
            "utilisation": speed * needed[name] / limit,
            "lowest": min(speeds),
            "highest": max(speeds),
            "losses": [one["loss"] for one in each],
            "peak_bytes": max(one["peak_bytes"] for one in each),
        }
    return {
        "cores": machine.cores,
        "cpu": machine.cpu,
        "matrix_limit": limit,
        "table": table,
    }


def _table(facts: dict[str, Any]) -> str:
    ours = facts["table"].get("fitune", {}).get("tokens_per_second")
    lines = [
        f"bf16 matrix products, {facts['cores']} cores of {facts['cpu']}: "
        f"{facts['matrix_limit'] / 1e9:,.0f} GFLOP/s",
        "",
        "| | tokens/s | lowest–highest | fitune is | MFLOP a token | of the matrix limit "
        "| loss of the last round | peak, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in facts["table"].items():
        times = f"{ours / row['tokens_per_second']:.2f} ×" if ours else ""
        lines.append(
            f"| {name} | {row['tokens_per_second']:.0f} | {row['lowest']:.0f}–{row['highest']:.0f} "
            f"| {times} | {row['flops_per_token'] / 1e6:,.0f} | {row['utilisation']:.0%} "
            f"| {row['losses'][-1]:.3f} "
            f"| {row['peak_bytes'] / 2**20:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
