"""Examples of a question's own: found as brute force finds them, fitting, and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fitune import config
from fitune.approaches.base import Shown
from fitune.approaches.example_selection import worth_showing
from fitune.approaches.fewshot import SPARE, FewShot
from fitune.data.rows import Row, Rows
from fitune.models.load import load_decoder
from fitune.models.source import resolve_source
from fitune.retrieval.encoder import Encoder

Make = Callable[..., Any]
ALL = {"candidates": "all", "calibrate": "batch"}
LABELS = ("change_pin", "late_transfer", "lost_card")


def few_shot(folder: Path, work: Any, **options: Any) -> FewShot:
    given = {"select": "nearest", "retriever": "bm25", "examples": 3}
    return FewShot(config.FewShot(model=str(folder), **(given | options)), work)


def fitted(made: FewShot, train: Rows) -> FewShot:
    made.fit(train, Rows(()))
    return made


def test_the_nearest_rows_are_those_of_brute_force(
    tiny_decoder: Path, tiny_encoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    made = fitted(
        few_shot(tiny_decoder, make_work(LABELS), retriever="dense", encoder=str(tiny_encoder)),
        intent_rows,
    )
    asked = Rows((Row("where is my card"), Row("change the code"), Row("money is late")))
    encoder = Encoder(resolve_source(str(tiny_encoder)))
    pool = worth_showing(intent_rows)
    vectors = encoder.passages(pool.texts)[0].astype(np.float64)
    for vector, answer in zip(
        encoder.queries(asked.texts).astype(np.float64), made.predict(asked, quietly), strict=True
    ):
        cosines = [float(vector @ other) for other in vectors]
        best = sorted(range(len(pool)), key=lambda i: -cosines[i])[:3]
        assert answer.passages is not None
        assert [shown.score for shown in answer.passages] == pytest.approx(
            [cosines[i] for i in best], abs=1e-5
        )
        for shown in answer.passages:
            (row,) = [row for row in pool if row.source == shown.place]
            assert shown == Shown(row.source, f"{row.text}\n{row.answer}", shown.score)
            assert cosines[pool.rows.index(row)] == pytest.approx(shown.score, abs=1e-5)


@pytest.mark.parametrize("candidates", ["all", "shown"])
@pytest.mark.parametrize("order", ["similar-last", "similar-first", "label"])
def test_the_nearest_rows_are_what_the_model_sees(
    candidates: str, order: str, tiny_decoder: Path, make_work: Make, intent_rows: Rows,
    quietly: Any,
) -> None:  # fmt: skip
    """Probabilities from one plain pass a label over the prompt written out by hand."""
    work = make_work(LABELS, instruction="Pick.")
    made = few_shot(tiny_decoder, work, candidates=candidates, order=order)
    fitted(made, intent_rows)
    model = load_decoder(made.source, dtype=torch.float32, device="cpu")
    tokenizer = made.template.tokenizer
    asked = Rows((Row("my card is lost or stolen"), Row("how to change my pin please")))
    for row, answer in zip(asked, made.predict(asked, quietly), strict=True):
        assert answer.passages is not None and answer.scores is not None
        pairs = [shown.text.split("\n") for shown in answer.passages]  # best first
        if order != "similar-first":
            pairs.reverse()
        if order == "label":
            pairs.sort(key=lambda pair: pair[1])
        words = dict(zip(LABELS, made.words, strict=True))
        turns = [(text, words[label]) for text, label in pairs] + [(row.text, "")]
        told = f"{made.template.instruction}\n\n" if candidates == "all" else "Pick.\n\n"
        text = "".join(
            f"<|user|>\n{told if i == 0 else ''}{question}<|end|>\n<|assistant|>\n"
            + (f"{label}<|end|>\n" if label else "")
            for i, (question, label) in enumerate(turns)
        )
        head = tokenizer(text, add_special_tokens=False).input_ids
        sums = []
        for label in LABELS:
            tokens = tokenizer(words[label], add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([head + tokens])).logits[0].double()
            logs = torch.log_softmax(logits, -1)
            total = sum(float(logs[len(head) - 1 + k, t]) for k, t in enumerate(tokens))
            open_ = candidates == "all" or label in {label for _, label in pairs}
            sums.append(total if open_ else -np.inf)
        odds = np.exp(np.array(sums) - max(sums))
        assert answer.scores == pytest.approx(list(odds / odds.sum()), abs=1e-5)
        assert answer.text == LABELS[int(odds.argmax())]


@pytest.mark.parametrize("kind", ["classify", "generate"])
def test_an_answer_does_not_depend_on_those_beside_it(
    kind: str, tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    work = make_work(LABELS if kind == "classify" else (), max_answer_tokens=4)
    made = fitted(few_shot(tiny_decoder, work, **(ALL if kind == "classify" else {})),
                  intent_rows)  # fmt: skip
    asked = Rows(tuple(Row(f"my {w} {i}") for i, w in enumerate(("card", "pin code", "money is"))))
    for row, answer in zip(asked, made.predict(asked, quietly), strict=True):
        (alone,) = made.predict(Rows((row,)), quietly)
        assert (alone.text, alone.passages) == (answer.text, answer.passages)
        assert (alone.scores or ()) == pytest.approx(answer.scores or (), abs=1e-5)


@pytest.mark.parametrize("kind", ["classify", "generate"])
@pytest.mark.parametrize(
    "options",
    [
        {"retriever": "bm25", "candidates": "all"},
        {"retriever": "hybrid"},
        {"select": "diverse", "retriever": None, "order": "label"},
        {"select": "diverse", "retriever": None, "calibrate": "contextual", "normalize": "pmi"},
    ],
    ids=["bm25", "hybrid", "diverse", "diverse calibrated"],
)
def test_reloaded_it_answers_the_same(
    kind: str, options: dict[str, Any], tiny_decoder: Path, tiny_encoder: Path, make_work: Make,
    intent_rows: Rows, quietly: Any, tmp_path: Path,
) -> None:  # fmt: skip
    if kind == "generate":
        options = {k: v for k, v in options.items() if k in ("retriever", "select", "order")}
    if options["retriever"] != "bm25":
        options = options | {"encoder": str(tiny_encoder)}
    work = make_work(LABELS if kind == "classify" else (), max_answer_tokens=4)
    made = fitted(few_shot(tiny_decoder, work, **options), intent_rows)
    made.save(tmp_path / "model")
    read = FewShot.load(tmp_path / "model", work)
    asked = Rows((*intent_rows.rows[:4], Row("where?")))
    assert read.predict(asked, quietly) == made.predict(asked, quietly)
    assert (read.cost, read.options) == (made.cost, made.options)


def test_what_it_costs(
    tiny_decoder: Path, tiny_encoder: Path, make_work: Make, intent_rows: Rows
) -> None:
    words = fitted(few_shot(tiny_decoder, make_work(LABELS)), intent_rows)
    assert words.cost.rows == len(worth_showing(intent_rows))
    vectors = few_shot(
        tiny_decoder, make_work(LABELS), retriever="dense", encoder=str(tiny_encoder)
    )
    more = fitted(vectors, intent_rows).cost.parameters - words.cost.parameters
    assert more == Encoder(resolve_source(str(tiny_encoder))).parameters
    spread = few_shot(
        tiny_decoder,
        make_work(LABELS),
        select="diverse",
        retriever=None,
        encoder=str(tiny_encoder),
    )
    assert fitted(spread, intent_rows).cost.parameters == words.cost.parameters
    assert spread.cost.rows == len(spread.examples) == 3


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    train=st.lists(st.tuples(st.integers(1, 40), st.sampled_from(LABELS)), min_size=1, max_size=12),
    question=st.integers(1, 70),
    examples=st.integers(1, 6),
    max_length=st.integers(120, 256),
)
def test_every_prompt_fits(
    train: list[tuple[int, str]], question: int, examples: int, max_length: int,
    tiny_decoder: Path, make_work: Make, quietly: Any,
) -> None:  # fmt: skip
    """Whatever is found: the question is whole, and so are the examples that are shown."""
    rows = Rows(
        tuple(Row("card " * n + f"{i}", label, source=f"{i}") for i, (n, label) in enumerate(train))
    )
    notices: list[str] = []
    made = fitted(
        few_shot(tiny_decoder, make_work(LABELS, notices=notices), examples=examples,
                 max_length=max_length), rows,
    )  # fmt: skip
    asked = Rows((Row("card " * question + "lost"),))
    asking = made._asking()
    if len(asking.prompt(asked[0], ())) > asking.room:
        return  # refused, with or without examples
    (answer,) = made.predict(asked, quietly)
    assert answer.passages is not None
    shown = [row for shown in answer.passages for row in rows if row.source == shown.place]
    assert len(asking.prompt(asked[0], shown)) <= asking.room
    assert bool(notices) == (len(shown) < examples)
    assert made._retriever is not None
    (hits,) = made._retriever.search(asked.texts, SPARE * examples)
    taken: list[Row] = []
    for hit in hits:  # the most similar that fit, passing over longer ones
        more = [*taken, made.pool[hit.passage]]
        if len(more) <= examples and len(asking.prompt(asked[0], more)) <= asking.room:
            taken = more
    assert shown == taken


def test_a_question_like_nothing_and_one_without_words(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    notices: list[str] = []
    made = few_shot(tiny_decoder, make_work(LABELS, notices=notices), candidates="shown")
    fitted(made, intent_rows)
    answers = made.predict(Rows((Row("中文"), Row(" "), Row("my card"))), quietly)
    assert [len(answer.passages or ()) for answer in answers] == [0, 0, 3]
    assert all(answer.scores and min(answer.scores) > 0 for answer in answers[:2]), "all labels"
    assert "fewer than 3 examples to 2 of 3 questions" in notices[-1]


def test_the_model_is_not_asked_what_is_settled(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where all examples shown have one label, nothing else could be answered."""
    import fitune.approaches.decoder as decoder

    asked: list[int] = []
    whole = decoder.score_answers

    def score_answers(model: Any, prompts: Any, *rest: Any, **how: Any) -> np.ndarray:
        asked.append(len(prompts))
        return whole(model, prompts, *rest, **how)

    monkeypatch.setattr(decoder, "score_answers", score_answers)
    made = fitted(few_shot(tiny_decoder, make_work(LABELS), examples=2), intent_rows)
    answers = made.predict(intent_rows[:40], quietly)
    settled = 0
    for answer in answers:
        labels = {shown.text.split("\n")[1] for shown in answer.passages or ()}
        if len(labels) == 1:
            settled += 1
            assert labels == {answer.text} and answer.scores
            assert max(answer.scores) == 1 and sum(answer.scores) == 1
    assert 0 < settled < 40 and asked == [40 - settled]
    alone = next(i for i, a in enumerate(answers) if max(a.scores or ()) == 1)
    assert made.predict(intent_rows[alone : alone + 1], quietly) == [answers[alone]]


def test_rows_that_choose_are_not_shown_their_own_answers(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows
) -> None:
    made = fitted(few_shot(tiny_decoder, make_work(LABELS), **ALL), intent_rows)
    for row, near in zip(intent_rows, made._find(intent_rows, learning=True), strict=True):
        assert len(near) == 3 and all(other.key != row.key for other, _ in near)
    found = made._find(intent_rows)
    assert [near[0][0].key for near in found] == [row.key for row in intent_rows]


def test_diverse_examples_come_from_everywhere(
    tiny_decoder: Path, tiny_encoder: Path, make_work: Make, intent_rows: Rows
) -> None:
    def spread(**options: Any) -> FewShot:
        work = make_work(LABELS, **options)
        how = {"select": "diverse", "retriever": None, "encoder": str(tiny_encoder)}
        return fitted(few_shot(tiny_decoder, work, **how), intent_rows)

    made = spread()
    assert len({row.answer for row in made.examples}) > 1
    assert spread().examples == made.examples
    assert made.options["examples_shown"] == [row.source for row in made.examples]
    assert made.options["encoder"] == str(tiny_encoder)


def test_nothing_worth_showing(tiny_decoder: Path, make_work: Make) -> None:
    from fitune.errors import DataError

    with pytest.raises(DataError, match="of 2 training rows none has a text and an answer"):
        fitted(few_shot(tiny_decoder, make_work()), Rows((Row("  ", "a"), Row("b"))))
