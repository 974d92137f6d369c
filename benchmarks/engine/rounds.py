"""What every contender trains on: the same tokens, in rounds.

Knows the data sets' files and fitune's template; a contender reads what is written here and needs
nothing of fitune for it.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

BATCH = 8
"""Rows of an optimizer step."""

STEPS = 8
"""Optimizer steps of a round."""

MAX_LENGTH = 1024

CLASSIFY_BATCH = 32
CLASSIFY_STEPS = 32
"""As `BATCH` and `STEPS`, for an encoder and rows of some fifteen tokens."""


def read_rasbt(folder: Path) -> list[tuple[str, str]]:
    """(question, answer) of github.com/rasbt/LLMs-from-scratch, in Alpaca's shape."""
    records = json.loads((folder / "instruction-data.json").read_text("utf-8"))
    return [
        (f"{r['instruction']}\n\n{r['input']}" if r["input"] else r["instruction"], r["output"])
        for r in records
    ]


def read_gsm8k(folder: Path) -> list[tuple[str, str]]:
    """(question, worked answer) of openai/grade-school-math, the training part."""
    lines = (folder / "train.jsonl").read_text("utf-8").splitlines()
    return [(r["question"], r["answer"]) for r in map(json.loads, lines)]


DATA = {"rasbt_instruct": read_rasbt, "gsm8k": read_gsm8k}


def write_rounds(data: Path, rounds: int, path: Path) -> None:
    """Write ``{"pad", "rounds": [[{"input_ids", "labels"}, …], …]}``; labels are -100 where nothing
    is learned. Rows are shuffled with a fixed seed."""
    from fitune.data.rows import Row
    from fitune.data.template import ChatTemplate
    from fitune.models.load import load_tokenizer
    from fitune.models.source import resolve_source

    tokenizer = load_tokenizer(resolve_source("smollm2-135m"))
    template = ChatTemplate(tokenizer, instruction=None)
    pairs = DATA[data.name](data)
    random.Random(0).shuffle(pairs)
    rows = []
    for question, answer in pairs:
        item = template.encode(Row(question, answer))
        if len(item) <= MAX_LENGTH:
            pairs_ = zip(item.tokens, item.learned, strict=True)
            labels = [token if learned else -100 for token, learned in pairs_]
            rows.append({"input_ids": list(item.tokens), "labels": labels})
        if len(rows) == rounds * STEPS * BATCH:
            break
    size = STEPS * BATCH
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    path.write_text(json.dumps({"pad": tokenizer.pad_token_id, "rounds": parts}))


def write_classify_rounds(data: Path, rounds: int, path: Path) -> None:
    """As `write_rounds`, of banking77: rows are ``{"input_ids", "label"}``, and ``labels`` names
    them."""
    from fitune.data.rows import Row
    from fitune.data.template import TextTemplate
    from fitune.models.load import load_tokenizer
    from fitune.models.source import resolve_source

    tokenizer = load_tokenizer(resolve_source("minilm-l6"))
    template = TextTemplate(tokenizer)
    with (data / "train.csv").open(encoding="utf-8", newline="") as file:
        records = [(record["text"], record["category"]) for record in csv.DictReader(file)]
    labels = sorted({label for _, label in records})
    random.Random(0).shuffle(records)
    size = CLASSIFY_STEPS * CLASSIFY_BATCH
    rows = [
        {"input_ids": list(template.encode(Row(text)).tokens), "label": labels.index(label)}
        for text, label in records[: rounds * size]
    ]
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    written = {"pad": tokenizer.pad_token_id, "labels": labels, "rounds": parts}
    path.write_text(json.dumps(written))
