"""Fine-tuning with retrieved context: it is learned from, kept, and the same after a reload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune import config
from fitune.approaches import lookup
from fitune.approaches.finetuned import Finetuned
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError, Interrupted

Make = Callable[..., Any]
COLOURS = ("blue", "green", "red")
FAST = {"dtype": "fp32", "batch_size": 8, "seed": 0}


def code(i: int) -> str:
    """A word for a number, unlike others: what BM25 can find and no model can know."""
    return "".join("abcdefghij"[int(d)] for d in f"{i * 7919 % 100000:05d}")


def rows(count: int, *, start: int = 0) -> Rows:
    return Rows(
        tuple(
            Row(f"what is {code(i)}", COLOURS[i * i % 3 if i % 2 else i % 3], source=f"row {i}")
            for i in range(start, start + count)
        )
    )


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    path = tmp_path / "facts.csv"
    facts = [f"{row.text.split()[-1]} {row.answer} {row.answer}" for row in rows(140)]
    path.write_text("\n".join(["text", *facts]) + "\n")
    return path


@pytest.fixture
def make(make_work: Make, docs: Path, tiny_encoder: Path, monkeypatch: Any) -> Make:
    monkeypatch.setattr(lookup, "ENCODER", str(tiny_encoder))

    def made(model: Path, labels: tuple[str, ...] = COLOURS, **options: Any) -> Finetuned:
        task, folder = options.pop("task", {}), options.pop("folder", "work")
        data = {"train": "unused.csv", "documents": str(docs)}
        work = make_work(labels, folder=folder, **{"data": data, **task})
        return Finetuned(config.Finetuned(model=str(model), **{**FAST, **options}), work)

    return made


LEARNS = {"method": "full", "context": "bm25", "passages": 1, "patience": 99}


def accuracy(made: Finetuned, test: Rows, quietly: Any) -> float:
    answers = made.predict(test, quietly)
    return sum(a.text == r.answer for a, r in zip(answers, test, strict=True)) / len(test)


def test_an_encoder_learns_to_read_what_only_the_documents_hold(
    make: Make, tiny_encoder: Path, quietly: Any, tmp_path: Path
) -> None:
    train, test = rows(100), rows(40, start=100)
    options = {"learning_rate": 3e-3, "epochs": 6, "max_length": 48, **LEARNS}
    made = make(tiny_encoder, **options)
    made.fit(train, test)
    assert accuracy(made, test, quietly) > 0.9
    without = make(tiny_encoder, **{**options, "context": None, "passages": None}, folder="bare")
    without.fit(train, test)
    assert accuracy(without, test, quietly) < 0.7
    made.save(tmp_path / "model")
    read = Finetuned.load(tmp_path / "model", made.work)
    assert read.predict(test, quietly) == made.predict(test, quietly)
    (passage,) = read.predict(test[:1], quietly)[0].passages or ()
    assert test[0].text.split()[-1] in passage.text and passage.place == "facts.csv:102"


@pytest.mark.parametrize("context", ["bm25", "dense", "hybrid"])
@pytest.mark.parametrize("kind", ["classify", "generate"])
def test_a_decoder_comes_back_the_same(
    kind: str, context: str, make: Make, tiny_decoder: Path, docs: Path, quietly: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    labels = COLOURS if kind == "classify" else ()
    made = make(
        tiny_decoder, labels, **{**LEARNS, "context": context, "passages": 2, "epochs": 1},
        max_length=200,
    )  # fmt: skip
    made.fit(rows(24), rows(8, start=24))
    answers = made.predict(rows(6, start=40), quietly)
    assert all(1 <= len(answer.passages or ()) <= 2 for answer in answers)
    made.save(tmp_path / "model")
    docs.unlink()
    read = Finetuned.load(tmp_path / "model", made.work)
    assert read.predict(rows(6, start=40), quietly) == answers
    assert read.cost == made.cost
    assert read.options["context_tokens"] == made.options["context_tokens"] == 150


def test_training_and_its_plan_see_the_passages(make: Make, tiny_decoder: Path) -> None:
    def ready(**options: Any) -> Any:
        made = make(tiny_decoder, (), method="full", epochs=1, max_length=200, **options)
        return made, made.make_ready(rows(16), rows(8, start=16))

    _, plain = ready()
    made, with_context = ready(context="bm25", passages=2)
    text = made.tuner.tokenizer.decode(with_context.items[3].tokens)
    assert f"Passages:\n[1] {code(3)}" in text
    assert with_context.planned.seq > plain.planned.seq + 10
    assert min(with_context.settings.lengths) > max(plain.settings.lengths)
    assert with_context.settings.fingerprint != plain.settings.fingerprint
    valid = made.tuner.tokenizer.decode(with_context.validation_items[0].tokens)
    assert f"[1] {code(16)}" in valid


def test_what_is_shown_does_not_depend_on_the_answer_asked_for(
    make: Make, tiny_decoder: Path
) -> None:
    made = make(tiny_decoder, (), method="full", epochs=1, max_length=90, context="bm25")
    made.make_ready(rows(16), rows(8, start=16))
    room = made.context._room(made.tuner, learned=False)
    for row in rows(4):
        assert room.length(row) == room.length(Row(row.text, "red " * 50))
    learned = made.context._room(made.tuner, learned=True)
    long = Row(rows(1)[0].text, "red " * 50)
    assert learned.length(long) > learned.length(rows(1)[0])


def test_interrupted_it_goes_on_to_the_same_weights(
    make: Make, make_work: Make, tiny_decoder: Path, docs: Path, tmp_path: Path
) -> None:
    options = {**LEARNS, "epochs": 3, "max_length": 120, "checkpoint_steps": 1}
    train, validation = rows(24), rows(8, start=24)
    whole = make(tiny_decoder, **options, folder="whole")
    whole.fit(train, validation)

    work = make_work(COLOURS, folder="cut", data={"train": "unused.csv", "documents": str(docs)})
    asked = iter([False] * 4 + [True] * 99)
    given = config.Finetuned(model=str(tiny_decoder), **{**FAST, **options})
    first = Finetuned(given, _stopping(work, lambda: next(asked)))
    with pytest.raises(Interrupted):
        first.fit(train, validation)
    second = Finetuned(given, work)
    second.fit(train, validation)
    for name, tensor in whole.tuner.model.state_dict().items():
        assert torch.equal(tensor, second.tuner.model.state_dict()[name]), name
    # Other documents are other rows: what was begun is not gone on with.
    docs.write_text("text\nhello\n")
    with pytest.raises(Exception, match=r"differ|other"):
        Finetuned(given, work).fit(train, validation)


def _stopping(work: Any, stop_requested: Callable[[], bool]) -> Any:
    from dataclasses import replace

    return replace(work, stop_requested=stop_requested)


def test_mistakes(make: Make, tiny_decoder: Path, tiny_encoder: Path) -> None:
    with pytest.raises(ConfigError, match="passages is 2, but finetuned has no context"):
        make(tiny_encoder, passages=2)
    with pytest.raises(ConfigError, match="context_tokens is 9, but finetuned has no context"):
        make(tiny_encoder, context_tokens=9)
    with pytest.raises(ConfigError, match="'finetuned' looks answers up in documents"):
        make(tiny_encoder, context="bm25", task={"data": {"train": "a.csv"}})
    with pytest.raises(DataError, match="no file or folder nowhere"):
        data = {"train": "a.csv", "documents": "nowhere"}
        make(tiny_encoder, context="bm25", task={"data": data})
    with pytest.raises(ConfigError, match="documents of kind language-model ask nothing"):
        make(tiny_decoder, (), context="bm25", task={"kind": "language-model"})
