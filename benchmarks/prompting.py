"""What asking well adds: one small model on banking77's 77 labels, as it is and asked better.

    ./run bench prompting path/to/banking77 [--test ROWS] [--only NAME …]

The folder holds train.csv and test.csv (columns text, category) as published by PolyAI
(github.com/PolyAI-LDN/task-specific-datasets, CC BY 4.0). Nothing is trained; choices are made on
rows held out of train.csv. First the time of one answer tree for 77 labels is compared with that of
77 passes. Writes results/prompting.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import fitune
from fitune.config import Data
from fitune.data.load import load_splits
from fitune.data.template import ChatTemplate
from fitune.hardware import this_machine
from fitune.inference.score import score_answers
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.source import resolve_source
from fitune.runs import write_json
from fitune.taskfile import parse_task

PLAIN = {"normalize": "sum", "calibrate": "none"}
NEAREST = {"use": "few-shot", "select": "nearest"}
WAYS: dict[str, dict[str, Any]] = {
    "prompt, as it is": {"use": "prompt", **PLAIN},
    "prompt": {"use": "prompt"},
    "8 balanced, as they are": {"use": "few-shot", **PLAIN},
    "8 balanced": {"use": "few-shot"},
    "8 diverse": {"use": "few-shot", "select": "diverse"},
    "8 nearest": NEAREST,
    "8 nearest, all labels": {**NEAREST, "candidates": "all"},
    "nearest rows vote": {"use": "knn"},
}
INSTRUCTION = "Classify the customer's banking question."


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--test", type=int, default=300, help="test rows (default 300)")
    arguments.add_argument("--only", nargs="*", default=list(WAYS), help="of " + ", ".join(WAYS))
    given = arguments.parse_args()
    folder = given.folder.resolve()
    tree = compare_tree(folder)
    print(
        f"77 labels after one prompt: {tree['pairs']:.2f} s by a pass a label, "
        f"{tree['tree']:.3f} s by one tree ({tree['pairs'] / tree['tree']:.0f} times)",
        flush=True,
    )
    approaches = [
        {"name": "".join(c if c.isalnum() else "-" for c in name), **WAYS[name]}
        for name in given.only
    ]
    with tempfile.TemporaryDirectory() as output:
        task = {
            "kind": "classify",
            "instruction": INSTRUCTION,
            "data": data_of(folder) | {"max_rows": {"test": given.test}},
            "approaches": approaches,
            "output": output,
        }
        result = fitune.ladder(parse_task(task))
    rungs = {rung.name: rung for rung in result.rungs}
    rows = []
    for name, approach in zip(given.only, approaches, strict=True):
        rung = rungs[approach["name"]]
        rows.append({"name": name, **rung.to_json()})
        print(
            f"{name:26} {rung.value:.3f} [{rung.interval.low:.3f}, {rung.interval.high:.3f}]  "
            f"fit {rung.train_seconds:5.0f} s, 1,000 answers {rung.seconds_per_1000:5.0f} s"
        )
        for note in rung.notes:
            print(f"{'':26} {note}")
    machine = this_machine()
    record = {"machine": f"{machine.cores} cores of {machine.cpu}", "tree": tree, "rungs": rows}
    write_json(Path(__file__).parent / "results" / "prompting.json", record)


def data_of(folder: Path) -> dict[str, Any]:
    columns = {"input": "text", "output": "category"}
    return {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), **columns}


def compare_tree(folder: Path, rows: int = 1, repeats: int = 2) -> dict[str, float]:
    """Seconds a row of one tree for all labels, and of a pass a label; the faster repeat of each,
    taken in turn. What prompts share is computed for so few rows here, too."""
    splits = load_splits(Data(**data_of(folder)), "classify")
    labels = [label.replace("_", " ") for label in splits.train.labels]
    source = resolve_source("smollm2-135m")
    template = ChatTemplate(
        load_tokenizer(source),
        instruction=f"{INSTRUCTION}\nAnswer with exactly one of these labels: {', '.join(labels)}.",
    )
    model = load_decoder(source, dtype=torch.bfloat16, device="cpu")
    prompts = [template.prompt(row).tokens for row in splits.train[:rows]]
    answers = [template.answer(label) for label in labels]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        for tree in seconds:
            started = time.perf_counter()
            score_answers(model, prompts, answers, pad=0, tree=tree)
            seconds[tree].append((time.perf_counter() - started) / rows)
    return {"tree": min(seconds[True]), "pairs": min(seconds[False])}


if __name__ == "__main__":
    main()
