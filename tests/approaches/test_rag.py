"""A decoder with passages: what it is told, what it answers, and that it comes back the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitune import config
from fitune.approaches.base import Prediction
from fitune.approaches.context import NOTHING
from fitune.approaches.decoder import Answerer
from fitune.approaches.finetuned import Finetuned
from fitune.approaches.prompt import Prompt
from fitune.approaches.rag import Rag
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError, ModelError
from fitune.models.load import load_decoder

Make = Callable[..., Any]
LABELS = ("no", "yes")
FACTS = {
    "card": "A stolen card is replaced in five days.",
    "fee": "The fee is two pounds.",
    "bank": "The bank is old and slow.",
}
ROWS = Rows((Row("when is a card replaced", "yes"), Row("what is the fee", "no"), Row("zebra")))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in FACTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def make(make_work: Make, tiny_decoder: Path, docs: Path) -> Make:
    def made(labels: tuple[str, ...] = (), *, task: Any = None, **options: Any) -> Rag:
        given = {"model": str(tiny_decoder), "retriever": "bm25", **options}
        fields = {"data": {"train": "unused.csv", "documents": str(docs)}, **(task or {})}
        if labels:
            given = {"normalize": "sum", "calibrate": "none", **given}
        return Rag(config.Rag.model_validate(given), make_work(labels, **fields))

    return made


def asked(made: Rag, row: Row) -> str:
    text: str = made.reader.template.tokenizer.decode(made.reader.template.prompt(row).tokens)
    return text


def test_labels_are_chosen_by_likelihood_given_the_passages(make: Make, quietly: Any) -> None:
    made = make(LABELS, passages=1, task={"instruction": "Say yes or no."})
    made.fit(ROWS[:2], ROWS[:2])
    answers = made.predict(ROWS, quietly)
    grounded = made.grounding.ground(ROWS, made._room(), "test").rows
    assert grounded[0].text == f"Passages:\n[1] {FACTS['card']}\n\nQuestion: {ROWS[0].text}"
    assert grounded[2].text == f"{NOTHING}\n\nQuestion: zebra"
    assert asked(made, grounded[0]).startswith("<|user|>\nSay yes or no.\n")
    model = load_decoder(made.reader.source, dtype=torch.float32, device="cpu")
    for row, answer in zip(grounded, answers, strict=True):
        head = list(made.reader.template.prompt(row).tokens)
        sums = []
        for label in LABELS:
            tail = list(made.reader.template.answer(label, ended=False))
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([head + tail])).logits[0].double()
            log_probs = torch.log_softmax(logits, -1)
            sums.append(sum(float(log_probs[len(head) - 1 + k, t]) for k, t in enumerate(tail)))
        odds = np.exp(np.array(sums) - max(sums))
        assert answer.scores == pytest.approx(list(odds / odds.sum()), abs=1e-5)
    assert [[p.place for p in answer.passages] for answer in answers] == [
        ["docs/card.txt"], ["docs/fee.txt"], [],
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["classify", "generate"])
@pytest.mark.parametrize("retriever", ["bm25", "hybrid"])
def test_reloaded_it_answers_the_same(
    kind: str, retriever: str, make: Make, tiny_encoder: Path, docs: Path, quietly: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    encoder = {} if retriever == "bm25" else {"encoder": str(tiny_encoder)}
    labels = LABELS if kind == "classify" else ()
    made = make(labels, retriever=retriever, passages=2, context_tokens=80, **encoder)
    made.fit(ROWS[:2], ROWS[:2])
    answers = made.predict(ROWS, quietly)
    assert len(answers[0].passages) == 2
    (tmp_path / "model").mkdir()
    made.save(tmp_path / "model")
    for path in docs.iterdir():
        path.unlink()
    read = Rag.load(tmp_path / "model", made.work)
    assert read.predict(ROWS, quietly) == answers
    assert (read.cost, read.options) == (made.cost, made.options)
    assert read.predict(Rows(()), quietly) == []


def test_the_answers_depend_on_the_documents(make: Make, docs: Path, quietly: Any) -> None:
    made = make(LABELS, passages=1)
    made.fit(ROWS[:2], ROWS[:2])
    before = made.predict(ROWS, quietly)
    (docs / "card.txt").write_text("A stolen card is help system hello world blue.")
    made = make(LABELS, passages=1)
    made.fit(ROWS[:2], ROWS[:2])
    after = made.predict(ROWS, quietly)
    assert after[0].scores != before[0].scores
    assert [answer.scores for answer in after[1:]] == [answer.scores for answer in before[1:]]


def test_it_is_told_to_cite_and_when_to_give_up(make: Make, quietly: Any) -> None:
    plain, told = make(), make(cite=True, not_found="unknown", instructions=["Say it."])
    assert "[1]" not in asked(plain, Row("why")) and "unknown" not in asked(plain, Row("why"))
    assert "such as [1]" in asked(told, Row("why"))
    assert "answer: unknown" in asked(told, Row("why"))
    first, second = told.reader.instructions
    assert first is not None and first.startswith("Answer the question from the passages")
    assert second is not None and second.startswith("Say it.") and "unknown" in second


def test_citations_are_read_and_taken_out(make: Make, monkeypatch: Any, quietly: Any) -> None:
    def says(rows: Rows, progress: Any) -> list[Prediction]:
        return [Prediction("five days [2] [9]", stopped=True) for _ in rows]

    for cite in (True, False):
        made = make(passages=2, cite=cite, task={"max_answer_tokens": 4})
        made.fit(Rows(()), Rows(()))
        monkeypatch.setattr(made.reader, "predict", says)
        (answer,) = made.predict(Rows((Row("stolen card fee is"),)), quietly)
        assert answer.text == ("five days [9]" if cite else "five days [2] [9]")
        assert [p.cited for p in answer.passages] == [False, cite]
        assert answer.stopped


def test_choosing_by_validation_sees_answers_without_citations(make: Make) -> None:
    made = make(cite=True)
    said = [Prediction("yes [1]"), Prediction("no [3]")]
    assert made.reader.work.score(said, ROWS[:2]) == 1.0
    assert make().reader.work.score(said, ROWS[:2]) == 0.0


@pytest.mark.parametrize("context", [None, 30])
def test_prompt_and_answer_fit_into_the_context(
    context: int | None, make: Make, docs: Path, quietly: Any
) -> None:
    (docs / "card.txt").write_text("My card is red. The bank is blue. " * 30)
    made = make(context_tokens=context, max_length=120, task={"max_answer_tokens": 20})
    made.fit(Rows(()), Rows(()))
    assert made.context_tokens == (context or 90)
    (answer,) = made.predict(ROWS[:1], quietly)
    room = made._room()
    (row,) = made.grounding.ground(ROWS[:1], room, "test").rows
    used = len(made.reader.template.prompt(row))
    assert 60 < used + 20 <= 120
    assert room.tokens(f"[1] {answer.passages[0].text}") <= made.context_tokens


def test_a_question_that_leaves_no_room_is_too_long_by_itself(make: Make, quietly: Any) -> None:
    made = make(max_length=100, task={"max_answer_tokens": 20})
    made.fit(Rows(()), Rows(()))
    with pytest.raises(DataError, match="longer than 80 tokens"):
        made.predict(Rows((Row("card " * 90),)), quietly)


def test_mistakes(make: Make, make_work: Make, tiny_encoder: Path, docs: Path) -> None:
    with pytest.raises(ConfigError, match="cite is about answers that are written"):
        make(LABELS, cite=True)
    with pytest.raises(ConfigError, match="not_found is about answers that are written"):
        make(LABELS, not_found="unknown")
    with pytest.raises(ModelError, match="needs a decoder"):
        make(model=str(tiny_encoder))
    with pytest.raises(ConfigError, match="approach 'rag' looks answers up in documents"):
        make(task={"data": {"train": "unused.csv"}})
    with pytest.raises(ConfigError, match="max_length 300 is more than the 256 tokens"):
        make(max_length=300)


def test_what_is_tried_on_validation_rows_is_shown_passages(make: Make) -> None:
    seen: list[str] = []
    rows = Rows(tuple(Row(f"{word} {i}", "yes") for i in range(30) for word in ("card", "fee")))
    made = make(LABELS, normalize=None, calibrate=None, passages=2)
    likelihoods = Answerer.likelihoods

    def watched(self: Answerer, rows: Rows, *given: Any, **options: Any) -> Any:
        seen.extend(row.text for row in rows)
        return likelihoods(self, rows, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answerer, "likelihoods", watched)
        made.fit(rows, rows)
    assert len(seen) > len(rows)
    assert all(text.startswith(("Passages:\n[1] ", NOTHING)) for text in seen)


@pytest.mark.parametrize(("better", "chosen"), [(1, 1), (3, 3), (None, 1)])
def test_the_number_of_passages_is_chosen_on_validation_rows(
    better: int | None, chosen: int, make: Make, quietly: Any, tmp_path: Path
) -> None:
    rows = Rows(tuple(Row(f"card fee is old {i}", "yes") for i in range(50)))

    def says(self: Any, rows: Rows) -> list[Prediction]:
        shown = [row.text.count("[") for row in rows]
        return [Prediction("yes" if count == better else "no") for count in shown]

    made = make(task={"max_answer_tokens": 2})
    made.fit(rows, rows[:49])
    assert made.options["passages"] == 3  # one too few to choose by
    made = make(task={"max_answer_tokens": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Prompt, "_answers", says)
        made.fit(rows, rows)
    assert made.options["passages"] == chosen
    (tmp_path / "model").mkdir()
    made.save(tmp_path / "model")
    read = Rag.load(tmp_path / "model", made.work)
    (answer,) = read.predict(rows[:1], quietly)
    assert len(answer.passages or ()) == chosen and read.options == made.options


def facts(count: int, *, start: int) -> Rows:
    """Questions about things that have no colour of their own."""
    colours = ("blue", "green", "red")
    names = ["".join("abcdefghij"[int(d)] for d in f"{i * 7919 % 100000:05d}") for i in range(999)]
    return Rows(
        tuple(
            Row(f"what is {names[i]}", colours[i * i % 7 % 3]) for i in range(start, start + count)
        )
    )


def test_facts_that_only_the_documents_hold(
    make_work: Make, tiny_decoder: Path, quietly: Any, tmp_path: Path
) -> None:
    """By a model that has learned to read: neither questions nor documents were there then."""
    told = {"instruction": "Answer."}

    def documents(rows: Rows) -> dict[str, Any]:
        path = tmp_path / f"{rows[0].text.split()[-1]}.csv"
        said = [f"{row.text.split()[-1]} is {row.answer} {row.answer}" for row in rows]
        path.write_text("\n".join(["text", *said]))
        return {"data": {"train": "unused.csv", "documents": str(path)}, **told}

    learned, asked = facts(120, start=0), facts(40, start=200)
    options = {"method": "full", "context": "bm25", "passages": 1, "patience": 99, "epochs": 12}
    options |= {"dtype": "fp32", "batch_size": 8, "learning_rate": 5e-3, "max_length": 120}
    work = make_work(**documents(learned), folder="tuned")
    tuned = Finetuned(config.Finetuned(model=str(tiny_decoder), **options), work)
    tuned.fit(learned, learned[:8])
    tuned.save(tmp_path / "reader")

    def right(made: Any) -> float:
        made.fit(Rows(()), Rows(()))
        answers = made.predict(asked, quietly)
        return sum(a.text == row.answer for a, row in zip(answers, asked, strict=True)) / len(asked)

    model = str(tmp_path / "reader" / "model")
    given = {"model": model, "retriever": "bm25", "passages": 1}
    assert right(Rag(config.Rag(**given), make_work(**documents(asked)))) > 0.8
    assert right(Prompt(config.Prompt(model=model), make_work(**told))) < 0.6
