"""Retrieval: how well passages are found, and how long indexing and searching take.

    ./run bench retrieval path/to/xquad.en.json

The file is a set of questions in SQuAD's form, such as XQuAD (github.com/google-deepmind/xquad,
CC BY-SA 4.0); its paragraphs are the passages, and a question's own paragraph is the only relevant
one. The default fusion was chosen with these figures in sight. Beside fitune's BM25, bm25s indexes
the same texts in turns, each tokenized by its own code, stop words kept. Seconds are of the
processor, on one thread, so that what else the machine does counts little; those of the clock are
given, too. Writes results/retrieval.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np

from fitune.hardware import this_machine
from fitune.retrieval import Retriever
from fitune.retrieval.bm25 import Bm25
from fitune.retrieval.dense import Dense, nearest
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.hybrid import Hybrid
from fitune.retrieval.measures import measure

PASSAGES = 100_000
LIMIT = 5.0  # seconds to index them
ROUNDS = 3


def read(path: Path) -> tuple[list[str], list[str], list[int]]:
    """Paragraphs, questions, and the number of each question's paragraph."""
    passages: list[str] = []
    questions: list[str] = []
    gold: list[int] = []
    for article in json.loads(path.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                questions.append(asked["question"])
                gold.append(len(passages))
            passages.append(paragraph["context"])
    return passages, questions, gold


def quality(passages: list[str], questions: list[str], gold: list[int]) -> dict[str, Any]:
    words, stopped = Bm25(), Bm25(stopwords="english")
    vectors = Dense(model=Encoder("minilm-l6"))
    for retriever in (words, stopped, vectors):
        retriever.build(passages)
    contenders: dict[str, Retriever] = {
        "bm25": words,
        "bm25, English stop words": stopped,
        "dense (minilm-l6)": vectors,
        "hybrid, reciprocal rank": Hybrid.of(words, vectors, fusion="reciprocal-rank"),
        "hybrid, min-max": Hybrid.of(words, vectors, fusion="min-max"),
        "hybrid, z-score": Hybrid.of(words, vectors, fusion="z-score"),
    }
    table = {}
    for name, retriever in contenders.items():
        rankings = [[hit.passage for hit in hits] for hits in retriever.search(questions, 10)]
        table[name] = {
            each.name: {"mean": each.mean, "low": each.interval.low, "high": each.interval.high}
            for each in measure(rankings, [{number} for number in gold])
        }
    columns = list(next(iter(table.values())))
    print(f"{'':26}" + "".join(f"{column:>22}" for column in columns))
    for name, row in table.items():
        cells = (f"{v['mean']:.3f} ({v['low']:.3f}–{v['high']:.3f})" for v in row.values())
        print(f"{name:26}" + "".join(f"{cell:>22}" for cell in cells))
    print(f"{len(passages)} passages, {len(questions)} questions; in brackets 95 % intervals")
    print(f"dense read only the beginning of {vectors.truncated} passages")
    return table


def zipf(rng: np.random.Generator) -> list[str]:
    """Texts of about 60 words, the n-th most frequent of 200,000 in proportion to 1/n."""
    words = np.array([f"w{i}" for i in range(200_000)])
    chances = 1 / np.arange(1, len(words) + 1)
    lengths = rng.poisson(60, PASSAGES) + 1
    drawn = words[rng.choice(len(words), size=lengths.sum(), p=chances / chances.sum())]
    return [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the processor, and of the clock."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - clock


def indexing(texts: list[str]) -> dict[str, Any]:
    import bm25s

    def theirs() -> None:
        tokens = bm25s.tokenize(texts, stopwords=None, show_progress=False)
        bm25s.BM25(method="lucene").index(tokens, show_progress=False)

    ours = Bm25()
    taken: dict[str, list[tuple[float, float]]] = {"fitune": [], "bm25s": []}
    for _ in range(ROUNDS):
        taken["fitune"].append(timed(lambda: ours.build(texts)))
        taken["bm25s"].append(timed(theirs))
    queries = texts[:: len(texts) // 200]
    shown = [" ".join(query.split()[:8]) for query in queries]
    processor, _ = timed(lambda: ours.search(shown, 10))
    best = {name: min(rounds) for name, rounds in taken.items()}
    for name, (processor_s, clock_s) in best.items():
        print(f"  {name:8} {processor_s:5.2f} s of the processor, {clock_s:5.2f} s of the clock")
    print(f"  fitune   {processor / len(shown) * 1e3:.2f} ms a query of 8 words")
    return {
        "rounds": taken,
        "ratio": best["bm25s"][0] / best["fitune"][0],
        "milliseconds_a_query": processor / len(shown) * 1e3,
    }


def main(path: Path) -> int:
    """Exit code 1 where indexing took longer than `LIMIT`."""
    import torch

    torch.set_num_threads(1)
    passages, questions, gold = read(path)
    machine = this_machine()
    found: dict[str, Any] = {"cpu": machine.cpu, "cores": machine.cores}
    found["quality"] = quality(passages, questions, gold)
    rng = np.random.default_rng(0)
    found["indexing"] = {}
    repeated = [passages[i % len(passages)] for i in range(PASSAGES)]
    for name, texts in (("Zipf text", zipf(rng)), ("paragraphs repeated", repeated)):
        count = sum(len(text.split()) for text in texts)
        print(f"BM25 index of {len(texts):,} passages, {count:,} words ({name}), best of {ROUNDS}:")
        found["indexing"][name] = {"words": count} | indexing(texts)
    vectors = rng.standard_normal((PASSAGES, 384), dtype=np.float32)
    processor, _ = timed(lambda: nearest(vectors[:128], vectors, 10))
    found["exact_search_milliseconds"] = processor / 128 * 1e3
    print(
        f"exact search of {PASSAGES:,} vectors of 384: {processor / 128 * 1e3:.2f} ms a query, "
        f"128 at once"
    )
    results = Path(__file__).parent / "results" / "retrieval.json"
    results.write_text(json.dumps(found, indent=1) + "\n")
    slowest = found["indexing"]["Zipf text"]["rounds"]["fitune"]
    return int(min(slowest)[0] > LIMIT)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
