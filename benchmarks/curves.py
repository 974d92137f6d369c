"""Whether bf16 learns as fp32 does: held-out loss over the steps, three seeds of each.

    ./run bench curves FOLDER [--steps 48] [--seeds 0 1 2]

FOLDER is rasbt_instruct or banking77 as published (see engine.py). For the first: SmolLM2-135M with
LoRA; for the second: all of MiniLM. Everything else is fitune's default, and the validation rows
are the same throughout. A seed draws what is new and the order of rows, and both dtypes of a seed
start from the same weights and meet the same rows, so that their losses are compared pair by pair:

    difference   mean over seeds of (bf16 - fp32), with its 95 % interval by Student's t
    spread       standard deviation over seeds of fp32's own losses: what another seed would change

Prints a line an evaluation and writes results/curves-NAME.json.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as students_t

import fitune
from fitune.config import Task
from fitune.hardware import this_machine

HERE = Path(__file__).parent
DTYPES = ("fp32", "bf16")
EVALUATIONS = 4

Curve = dict[int, float]
"""Step → loss of the validation rows."""


@dataclass(frozen=True)
class Contest:
    """What is trained.

    Attributes:
        task: a task, but for its rows' number and its approach.
        file: of its folder, the rows.
        options: of fine-tuning.
        batch: rows a step.
        validation: rows.
    """

    task: dict[str, Any]
    file: str
    options: dict[str, Any]
    batch: int
    validation: int


CONTESTS = {
    "rasbt_instruct": Contest(
        {"kind": "generate", "max_answer_tokens": 16},
        "instruction-data.json",
        {"model": "smollm2-135m", "method": "lora"},
        batch=8,
        validation=64,
    ),
    "banking77": Contest(
        {"kind": "classify"},
        "train.csv",
        {"model": "minilm-l6", "method": "full"},
        batch=32,
        validation=500,
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(
        prog="./run bench curves", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    curves: dict[str, list[Curve]] = {dtype: [] for dtype in DTYPES}
    for seed in options.seeds:
        for dtype in DTYPES:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as scratch:
                found = curve(options.folder.resolve(), dtype, seed, options.steps, Path(scratch))
            curves[dtype].append(found)
            said = ", ".join(f"{step}: {loss:.4f}" for step, loss in found.items())
            print(
                f"{dtype}, seed {seed}: {said} ({time.perf_counter() - started:.0f} s)", flush=True
            )
    contest = CONTESTS[options.folder.resolve().name]
    facts = {
        **contest.options,
        "batch_size": contest.batch,
        "validation_rows": contest.validation,
        "seeds": options.seeds,
        "machine": this_machine().cpu,
        "curves": curves,
        "steps": compared(curves["fp32"], curves["bf16"]),
    }
    print(table(facts["steps"]))
    path = HERE / "results" / f"curves-{options.folder.resolve().name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def curve(folder: Path, dtype: str, seed: int, steps: int, output: Path) -> Curve:
    """One training. Two test rows are answered, since a run answers some."""
    contest = CONTESTS[folder.name]
    rows = {"train": steps * contest.batch, "validation": contest.validation, "test": 2}
    tuned = {
        "use": "finetuned",
        "dtype": dtype,
        "epochs": 1,
        "batch_size": contest.batch,
        "evaluations_per_epoch": EVALUATIONS,
        "patience": EVALUATIONS,
    }
    task = Task.model_validate(
        {
            **contest.task,
            "data": {"train": str(folder / contest.file), "too_long": "drop", "max_rows": rows},
            "approaches": [tuned | contest.options],
            "seed": seed,
            "output": str(output),
        }
    )
    fitune.tune(task)
    (metrics,) = output.rglob("metrics.jsonl")
    records = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    return {r["step"]: r["loss"] for r in records if r["kind"] == "validation"}


def compared(fp32: Sequence[Curve], bf16: Sequence[Curve]) -> list[dict[str, float]]:
    """Step by step, over the seeds, which stand in the same order."""
    found = []
    for step in fp32[0]:
        exact, short = ([curve[step] for curve in curves] for curves in (fp32, bf16))
        differences = [b - a for a, b in zip(exact, short, strict=True)]
        n = len(differences)
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.nan
        half = float(students_t.ppf(0.975, n - 1)) * error if n > 1 else math.nan
        found.append(
            {
                "step": step,
                "fp32": statistics.mean(exact),
                "bf16": statistics.mean(short),
                "difference": mean,
                "low": mean - half,
                "high": mean + half,
                "spread": statistics.stdev(exact) if n > 1 else math.nan,
            }
        )
    return found


def table(steps: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| step | fp32 | bf16 | bf16 - fp32 (95 % interval) | spread between seeds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['step']} | {row['fp32']:.4f} | {row['bf16']:.4f} | {row['difference']:+.4f} "
        f"({row['low']:+.4f} to {row['high']:+.4f}) | {row['spread']:.4f} |"
        for row in steps
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
