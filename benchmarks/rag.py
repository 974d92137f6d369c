"""What passages add, and what training adds: prompt, rag, fine-tuned and both, on the same rows.

    ./run bench rag path/to/data [--only xquad_half|boolq] [--test ROWS] [--no-training]

The folder holds `xquad_half/xquad_half.en.json` (questions in SQuAD's form, e.g. XQuAD,
github.com/google-deepmind/xquad, CC BY-SA 4.0) and `boolq/dev.jsonl` (Clark et al. 2019, CC BY-SA
3.0). Their passages are the documents; models are given only the questions. Questions are split by
their passage, so that no passage asked about in training is asked about in the test; all passages
are searched. Retrieval is judged by the question's own passage (recall, reciprocal rank) and, for
xquad, by whether the answer stands in what was shown. Default prompts and numbers of passages were
chosen on validation rows. Writes results/rag.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import fitune
from fitune.hardware import this_machine
from fitune.retrieval.measures import answer_mrr, answer_recall
from fitune.runs import read_json, read_jsonl, write_json, write_jsonl

PASSAGES = 3
MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and the number of the passage that answers it."""

    question: str
    answer: str
    passage: int


@dataclass(frozen=True)
class Data:
    """One data set: what is asked of which passages, and how it is cut.

    Attributes:
        sizes: rows of training, validation and test, at most.
        fields: of the task file.
        baselines: approaches besides.
        tuned: options of fine-tuning.
    """

    passages: list[str]
    asked: list[Asked]
    sizes: tuple[int, int, int]
    fields: dict[str, Any]
    baselines: tuple[dict[str, Any], ...]
    tuned: dict[str, Any]


def read_xquad(folder: Path) -> Data:
    passages: list[str] = []
    asked: list[Asked] = []
    text = (folder / "xquad_half" / "xquad_half.en.json").read_text("utf-8")
    for article in json.loads(text)["data"]:
        for paragraph in article["paragraphs"]:
            for one in paragraph["qas"]:
                asked.append(Asked(one["question"], one["answers"][0]["text"], len(passages)))
            passages.append(paragraph["context"])
    return Data(
        passages,
        asked,
        sizes=(200, 60, 150),
        fields={"kind": "generate", "max_answer_tokens": 24},
        baselines=(),
        tuned={"epochs": 2, "max_length": 1024},
    )


def read_boolq(folder: Path) -> Data:
    passages: dict[str, int] = {}
    asked = []
    for line in (folder / "boolq" / "dev.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        number = passages.setdefault(record["passage"], len(passages))
        asked.append(Asked(record["question"] + "?", "yes" if record["answer"] else "no", number))
    return Data(
        list(passages),
        asked,
        sizes=(150, 60, 200),
        fields={"kind": "classify", "instruction": "Is the answer to the question yes or no?"},
        baselines=({"use": "majority"},),
        tuned={"epochs": 1, "max_length": 1024},
    )


READERS = {"xquad_half": read_xquad, "boolq": read_boolq}


def split(data: Data, seed: int = 0) -> list[list[Asked]]:
    """Training, validation and test rows, whole passages each: half, a fifth and the rest of
    them, then as many rows as `sizes` says."""
    numbers = list(range(len(data.passages)))
    rng = random.Random(seed)
    rng.shuffle(numbers)
    cuts = [0, len(numbers) // 2, len(numbers) * 7 // 10, len(numbers)]
    parts = []
    for (start, end), size in zip(pairwise(cuts), data.sizes, strict=True):
        mine = set(numbers[start:end])
        rows = [one for one in data.asked if one.passage in mine]
        parts.append(rng.sample(rows, min(size, len(rows))))
    return parts


def approaches(data: Data, *, training: bool) -> list[dict[str, Any]]:
    prompt = {"use": "prompt", "model": MODEL}
    rag = {**prompt, "use": "rag", "passages": PASSAGES}
    tuned = {"use": "finetuned", "model": MODEL, "method": "lora", **data.tuned}
    names = ("bm25", "dense", "hybrid")
    found = [*data.baselines, prompt]
    found += [{**rag, "name": f"rag-{name}", "retriever": name} for name in names]
    found.append({**rag, "name": "rag-hybrid-1", "retriever": "hybrid", "passages": 1})
    if training:
        found.append({**tuned, "name": "finetuned"})
        found.append({**tuned, "name": "both", "context": "hybrid", "passages": PASSAGES})
    return found


def measure(name: str, data: Data, test: int | None, *, training: bool) -> dict[str, Any]:
    """Climb, and read what was shown."""
    if test:
        data = Data(**{**vars(data), "sizes": (*data.sizes[:2], test)})
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_jsonl(place / "passages.jsonl", [{"text": text} for text in data.passages])
        parts = dict(zip(("train", "validation", "test"), split(data), strict=True))
        for part, rows in parts.items():
            records = [{"text": one.question, "label": one.answer} for one in rows]
            write_jsonl(place / f"{part}.jsonl", records)
        files = {part: str(place / f"{part}.jsonl") for part in parts}
        task = {
            "name": name,
            "data": {
                **files,
                "documents": str(place / "passages.jsonl"),
                "input": "text",
                "output": "label",
            },
            "approaches": approaches(data, training=training),
            "output": str(place / "runs"),
            **data.fields,
        }
        write_json(place / "task.yaml", task)  # JSON is YAML
        started = time.perf_counter()
        result = fitune.ladder(place / "task.yaml", on=Told())
        seconds = time.perf_counter() - started
        gold = {one.question: data.passages[one.passage] for one in data.asked}
        asked = [record["text"] for record in read_jsonl(result.run / "rows.test.jsonl")]
        rungs = {}
        for rung in result.rungs:
            lines = read_jsonl(result.run / "rungs" / rung.name / "predictions.jsonl")
            shown = [line["passages"] for line in lines]
            rungs[rung.name] = {
                rung.metric: rung.value,
                "low": rung.interval.low,
                "high": rung.interval.high,
                **rung.metrics,
                "train_seconds": rung.train_seconds,
                "seconds_per_1000": rung.seconds_per_1000,
                **({} if shown[0] is None else found(shown, asked, gold)),
            }
            if shown[0] is not None and data.fields["kind"] == "generate":
                rungs[rung.name] |= answered(result.run, shown)
        counts = {part: len(rows) for part, rows in parts.items()}
        return {"rows": counts, "passages": len(data.passages), "seconds": seconds, "rungs": rungs}


def found(
    shown: Sequence[Sequence[dict[str, Any]]], asked: Sequence[str], gold: dict[str, str]
) -> dict[str, float]:
    """Recall and reciprocal rank of the question's own passage, a piece of which counts."""
    ranks = []
    for passages, question in zip(shown, asked, strict=True):
        own = gold[question]
        right = (n for n, p in enumerate(passages, start=1) if p["text"] in own)
        ranks.append(next(right, 0))
    recalls = {
        f"recall@{k}": sum(0 < rank <= k for rank in ranks) / len(ranks)
        for k in range(1, PASSAGES + 1)
    }
    return recalls | {"mrr": sum(1 / rank for rank in ranks if rank) / len(ranks)}


def answered(run: Path, shown: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """Whether the answer stands in what was shown."""
    answers = [record["answer"] for record in read_jsonl(run / "rows.test.jsonl")]
    texts = [[passage["text"] for passage in passages] for passages in shown]
    recalls = {
        f"answer_recall@{k}": answer_recall(texts, answers, k) for k in range(1, PASSAGES + 1)
    }
    return recalls | {"answer_mrr": answer_mrr(texts, answers, PASSAGES)}


class Told:
    """Tells of each rung as it is finished."""

    def progress(self, label: str, done: int, total: int) -> None: ...

    def notice(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    def rung(self, rung: Any) -> None:
        print(
            f"  {rung.name}: {rung.metric} {rung.value:.3f}, training {rung.train_seconds:.0f} s, "
            f"{rung.seconds_per_1000:.0f} s for 1,000 answers",
            file=sys.stderr,
            flush=True,
        )


def show(name: str, measured: dict[str, Any]) -> None:
    rows, rungs = measured["rows"], measured["rungs"]
    print(
        f"\n{name}: {rows['test']} test rows, {rows['train']} training rows, "
        f"{measured['passages']:,} passages, {measured['seconds'] / 60:.0f} minutes"
    )
    metric = next(iter(next(iter(rungs.values()))))
    columns = [metric, "exact_match"] if metric == "token_f1" else [metric]
    columns += [f"recall@{k}" for k in range(1, PASSAGES + 1)] + ["mrr"]
    columns += ["answer_recall@1", f"answer_recall@{PASSAGES}", "answer_mrr"]
    print(f"{'':12}" + "".join(f"{column:>17}" for column in columns) + f"   95 % of {metric}")
    for rung, row in rungs.items():
        cells = (f"{row[column]:.3f}" if column in row else "" for column in columns)
        print(
            f"{rung:12}"
            + "".join(f"{cell:>17}" for cell in cells)
            + f"   {row['low']:.3f}–{row['high']:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=READERS)
    parser.add_argument("--test", type=int, help="test rows, at most")
    parser.add_argument("--no-training", action="store_true")
    given = parser.parse_args()
    results = Path(__file__).parent / "results" / "rag.json"
    machine = this_machine()
    kept = read_json(results) if results.is_file() else {}
    kept |= {"cpu": machine.cpu, "cores": machine.cores, "model": MODEL}
    for name in [given.only] if given.only else READERS:
        data = READERS[name](given.folder.resolve())
        kept[name] = measure(name, data, given.test, training=not given.no_training)
        show(name, kept[name])
        if not (given.test or given.no_training):  # a part of it is no result
            write_json(results, kept)


if __name__ == "__main__":
    main()
