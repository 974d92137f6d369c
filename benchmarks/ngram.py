"""N-gram models of order 5 beside nltk.lm: training, scoring, and memory at corpora of any size.

    ./run bench ngram path/to/text.txt [--nltk PYTHON] [--tokens 200000] [--memory 20000000]

Both learn and score the same token ids, in processes of one thread that take turns; seconds are
those of the processor, so that other work on the machine counts as little as it can. `--nltk` names
a Python that has nltk; without it only fitune is measured. Of nltk, `fit` only counts:
probabilities are computed when asked for. `--memory` is how many tokens of made-up text (Zipf's
law, phrases that come again) fitune counts for the figure of memory, in a process of its own; 0
leaves it out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDER = 5
ROUNDS = 3
ASKED = 10
"""Tokens that nltk scores: it takes up to a second for each."""


def main(text: Path, nltk: str | None, tokens: int, memory: int) -> None:
    from fitune.hardware import this_machine
    from fitune.language_models.vocabulary import build_vocabulary

    machine = this_machine()
    print(f"order {ORDER}, {machine.cpu}, one thread; median of {ROUNDS}, lowest to highest")
    lines = [line for line in text.read_text("utf-8").splitlines() if line.strip()]
    for kind in ("characters", "words"):
        vocabulary = build_vocabulary(lines, kind)
        whole = [ids.tolist() for ids in vocabulary.encode_all(lines)]
        with tempfile.TemporaryDirectory() as folder:
            cases = {"part": _first(whole, tokens), "whole": whole, "ten times over": whole * 10}
            for name, sequences in cases.items():
                path = Path(folder) / "ids.json"
                path.write_text(json.dumps({"size": len(vocabulary), "sequences": sequences}))
                peers = {"fitune": sys.executable}
                if nltk is not None and name == "part":
                    peers["nltk"] = nltk
                size = sum(len(one) + 1 for one in sequences)
                print(f"\n{kind}, {name}: {size:,} tokens, vocabulary {len(vocabulary):,}")
                _compare(peers, path, size)
    if memory:
        found = _worker(sys.executable, "memory", str(memory))
        print(
            f"\nmade-up text, {memory:,} tokens, vocabulary 100,000: "
            f"{found['ngrams'] / memory:.2f} distinct n-grams a token, {found['seconds']:.0f} s "
            f"({memory / found['seconds'] / 1e6:.2f} million tokens/s), peak "
            f"{found['peak'] / 2**30:.2f} GiB, {found['peak'] / memory:.0f} bytes a token"
        )


def _first(sequences: list[list[int]], tokens: int) -> list[list[int]]:
    kept, size = [], 0
    for one in sequences:
        if size >= tokens:
            break
        kept.append(one)
        size += len(one) + 1
    return kept


def _compare(peers: dict[str, str], path: Path, size: int) -> None:
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for _ in range(ROUNDS):
        for peer, python in peers.items():
            found[peer].append(_worker(python, peer, str(path)))
    speeds = {}
    for peer, rounds in found.items():
        fit = sorted(size / one["fit"] for one in rounds)
        score = sorted(one["scored"] / one["score"] for one in rounds)
        speeds[peer] = statistics.median(fit), statistics.median(score)
        peak = max(one["peak"] for one in rounds) / 2**20
        print(
            f"  {peer:7} training {_range(fit)}   scoring {_range(score)}   peak {peak:,.0f} MiB",
            flush=True,
        )
    if "nltk" in speeds:
        ratios = [ours / theirs for ours, theirs in zip(*speeds.values(), strict=True)]
        print(
            f"  fitune is {ratios[0]:,.0f} times as fast in training, {ratios[1]:,.0f} in scoring"
        )


def _range(speeds: list[float]) -> str:
    middle = statistics.median(speeds)
    return f"{middle:12,.0f} tokens/s ({speeds[0]:,.0f} to {speeds[-1]:,.0f})"


def _worker(python: str, *words: str) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, __file__, "--worker", *words],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


# --- in a process of its own ---------------------------------------------------------------------


def with_fitune(path: str) -> dict[str, float]:
    import numpy as np

    from fitune.language_models.ngram import NGram

    given = json.loads(Path(path).read_text())
    sequences = [np.array(one, np.int32) for one in given["sequences"]]
    model = NGram(given["size"], order=ORDER)
    _, fit = _timed(lambda: model.fit(sequences))
    logs, score = _timed(lambda: model.log_probabilities(sequences))
    return {"fit": fit, "score": score, "scored": sum(map(len, logs))}


def with_nltk(path: str) -> dict[str, float]:
    from nltk.lm import KneserNeyInterpolated  # type: ignore[import-not-found]
    from nltk.lm.preprocessing import (  # type: ignore[import-not-found]
        padded_everygram_pipeline,
    )

    given = json.loads(Path(path).read_text())
    sequences = [[str(token) for token in one] for one in given["sequences"]]
    model = KneserNeyInterpolated(ORDER)
    grams, words = padded_everygram_pipeline(ORDER, sequences)
    _, fit = _timed(lambda: model.fit(grams, words))
    text = [token for one in sequences[:50] for token in one][: ASKED + ORDER]
    asked = [(text[i], text[i - ORDER + 1 : i]) for i in range(ORDER - 1, len(text))]
    _, score = _timed(lambda: [model.score(word, context) for word, context in asked])
    return {"fit": fit, "score": score, "scored": len(asked)}


def of_memory(tokens: str) -> dict[str, float]:
    import numpy as np

    from fitune.language_models.ngram import NGram

    size = 100_000
    draw = np.random.default_rng(0)
    weights = np.cumsum(1 / np.arange(1, size + 1))
    count = int(tokens)
    text = np.empty(count, np.int32)
    for start in range(0, count, 2**20):
        part = text[start : start + 2**20]
        part[:] = np.searchsorted(weights, draw.random(len(part)) * weights[-1])
    # Text is no bag of words: two thirds of it are phrases of 4 tokens that came before.
    starts = np.arange(4, count - 4, 4)
    copied = starts[draw.random(len(starts)) < 2 / 3]
    source = (draw.random(len(copied)) ** 2 * copied).astype(np.int64)
    for k in range(4):
        text[copied + k] = text[source + k]
    sequences = np.split(text, np.arange(25, count, 25))
    model = NGram(size, order=ORDER)
    _, seconds = _timed(lambda: model.fit(sequences))
    return {"seconds": seconds, "ngrams": sum(len(level.keys) for level in model.levels)}


def _timed(do: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    done = do()
    return done, time.process_time() - started


WORKERS: dict[str, Callable[[str], dict[str, float]]] = {
    "fitune": with_fitune,
    "nltk": with_nltk,
    "memory": of_memory,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        answer = WORKERS[sys.argv[2]](sys.argv[3])
        answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(answer))
    else:
        parser = argparse.ArgumentParser(
            description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("text", type=Path)
        parser.add_argument("--nltk", metavar="PYTHON")
        parser.add_argument("--tokens", type=int, default=200_000)
        parser.add_argument("--memory", type=int, default=20_000_000)
        asked = parser.parse_args()
        main(asked.text, asked.nltk, asked.tokens, asked.memory)
