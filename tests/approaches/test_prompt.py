"""Prompted decoders: what is asked, what is answered, and how examples are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitune import config
from fitune.approaches.fewshot import EXAMPLES_SHARE, FewShot, balanced
from fitune.approaches.prompt import Prompt
from fitune.data.rows import Row, Rows, Turn
from fitune.errors import ConfigError, DataError, ModelError
from fitune.models.load import load_decoder

Make = Callable[..., Any]
LABELS = ("change_pin", "late_transfer", "lost_card")


def prompt(folder: Path, work: Any, **options: Any) -> Prompt:
    return Prompt(config.Prompt(model=str(folder), **options), work)


def few_shot(folder: Path, work: Any, **options: Any) -> FewShot:
    return FewShot(config.FewShot(model=str(folder), **options), work)


def by_hand(made: Prompt, row: Row) -> list[float]:
    """Probabilities of the labels, from one plain forward pass per label."""
    model = load_decoder(made.source, dtype=torch.float32, device="cpu")
    head = list(made.template.prompt(row, made.examples).tokens)
    sums = []
    for label in made.work.labels:
        answer = list(made.template.answer(label))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([head + answer])).logits[0].double()
        log_probs = torch.log_softmax(logits, -1)
        sums.append(sum(float(log_probs[len(head) - 1 + k, t]) for k, t in enumerate(answer)))
    odds = np.exp(np.array(sums) - max(sums))
    return list(odds / odds.sum())


def test_labels_are_chosen_by_likelihood(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    made = prompt(tiny_decoder, make_work(LABELS, instruction="Pick the intent."))
    made.fit(intent_rows, intent_rows)
    rows = intent_rows[:4]
    for row, answer in zip(rows, made.predict(rows, quietly), strict=True):
        expected = by_hand(made, row)
        assert answer.scores == pytest.approx(expected, abs=1e-5)
        assert answer.text == LABELS[int(np.argmax(expected))]
    asked = made.template.tokenizer.decode(made.template.prompt(rows[0]).tokens)
    assert asked == (
        "<|user|>\nPick the intent.\nAnswer with exactly one of these labels: change_pin, "
        f"late_transfer, lost_card.\n\n{rows[0].text}<|end|>\n<|assistant|>\n"
    )
    assert made.cost.trainable_parameters == made.cost.rows == 0


def test_free_answers_stop_or_reach_the_limit(
    tiny_decoder: Path, make_work: Make, quietly: Any
) -> None:
    made = prompt(tiny_decoder, make_work(max_answer_tokens=5))
    made.fit(Rows((Row("a", "b"),)), Rows(()))
    tokenizer = made.template.tokenizer
    model = load_decoder(made.source, dtype=torch.float32, device="cpu")
    rows = Rows((Row("what is my card"), Row("why")))
    for row, answer in zip(rows, made.predict(rows, quietly), strict=True):
        tokens = list(made.template.prompt(row).tokens)
        written: list[int] = []
        stopped = False
        while len(written) < 5 and not stopped:
            with torch.no_grad():
                token = int(
                    model(input_ids=torch.tensor([tokens + written])).logits[0, -1].argmax()
                )
            stopped = token in made.template.stop_tokens
            written += [] if stopped else [token]
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True).strip()
        assert (answer.stopped, answer.scores) == (stopped, None)


@pytest.mark.parametrize("kind", ["classify", "generate"])
@pytest.mark.parametrize("approach", ["prompt", "few-shot"])
def test_reloaded_it_answers_the_same(
    kind: str,
    approach: str,
    tiny_decoder: Path,
    make_work: Make,
    intent_rows: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    work = make_work(LABELS if kind == "classify" else ())
    made = (prompt if approach == "prompt" else few_shot)(tiny_decoder, work, max_length=200)
    made.fit(intent_rows, intent_rows)
    made.save(tmp_path / "model")
    read = type(made).load(tmp_path / "model", work)
    assert read.predict(intent_rows[:5], quietly) == made.predict(intent_rows[:5], quietly)
    assert [row.content_hash for row in read.examples] == [r.content_hash for r in made.examples]
    assert read.cost == made.cost
    assert read.predict(Rows(()), quietly) == []


def test_how_long_answers_may_be(tiny_decoder: Path, make_work: Make) -> None:
    rows = Rows(tuple(Row(f"q {i}", "red " * (40 if i == 0 else 3)) for i in range(10)))
    made = prompt(tiny_decoder, make_work())
    made.fit(rows, rows)
    longest = len(made.template.tokenizer("red " * 40, add_special_tokens=False).input_ids)
    assert 0.9 * longest < made.max_new_tokens <= 1.25 * longest + 1
    asked = prompt(tiny_decoder, make_work(max_answer_tokens=7))
    asked.fit(rows, rows)
    assert asked.options["max_new_tokens"] == 7


def test_rows_over_the_limit(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    long = Rows((Row("my card " * 200, source="data.csv:5"), Row("my card")))
    refusing = prompt(tiny_decoder, make_work(LABELS))
    refusing.fit(intent_rows, intent_rows)
    with pytest.raises(DataError, match="1 of 2 answered rows"):
        refusing.predict(long, quietly)
    notices: list[str] = []
    data = {"train": "x.csv", "too_long": "drop"}
    cutting = prompt(tiny_decoder, make_work(LABELS, notices=notices, data=data))
    cutting.fit(intent_rows, intent_rows)
    assert len(cutting.predict(long, quietly)) == 2
    assert len(notices) == 1 and "1 of 2 answered rows" in notices[0] and "cut" in notices[0]


def test_answers_that_leave_no_room(tiny_decoder: Path, make_work: Make, quietly: Any) -> None:
    made = prompt(tiny_decoder, make_work(max_answer_tokens=300))
    made.fit(Rows((Row("a", "b"),)), Rows(()))
    with pytest.raises(ConfigError, match=r"an answer may have 300 tokens.* max_length 256"):
        made.predict(Rows((Row("a"),)), quietly)


@pytest.mark.parametrize("make", [prompt, few_shot])
def test_wrong_models_and_lengths(
    make: Callable[..., Any], tiny_encoder: Path, tiny_decoder: Path, make_work: Make
) -> None:
    with pytest.raises(ModelError, match=r"needs a decoder, and .* is an encoder"):
        make(tiny_encoder, make_work(LABELS))
    with pytest.raises(ConfigError, match="max_length 257 is more than the 256 tokens"):
        make(tiny_decoder, make_work(LABELS), max_length=257)
    assert make(tiny_decoder, make_work(LABELS), max_length=256).max_length == 256


# Examples


def test_examples_are_balanced_and_do_not_depend_on_the_order(intent_rows: Rows) -> None:
    skewed = Rows(tuple(r for r in intent_rows if r.answer != "lost_card" or hash(r.key) % 5))
    ranked = balanced(skewed, seed=3, balance=True)
    assert sorted(r.content_hash for r in ranked) == sorted(r.content_hash for r in skewed)
    for k in (3, 6, 9):
        assert set(Counter(r.answer for r in ranked[:k]).values()) == {k // 3}
    backwards = Rows(tuple(reversed(skewed.rows)))
    assert balanced(backwards, seed=3, balance=True) == ranked
    assert balanced(skewed, seed=4, balance=True) != ranked


def test_few_shot_shows_what_it_was_asked_to(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows
) -> None:
    made = few_shot(tiny_decoder, make_work(LABELS), examples=3, max_length=256)
    made.fit(intent_rows, intent_rows)
    assert Counter(row.answer for row in made.examples) == dict.fromkeys(LABELS, 1)
    assert made.options["examples_shown"] == [row.source for row in made.examples]
    assert made.cost.rows == 3
    again = few_shot(tiny_decoder, make_work(LABELS), examples=3, max_length=256)
    again.fit(Rows(tuple(reversed(intent_rows.rows))), intent_rows)
    assert again.examples == made.examples
    other = few_shot(tiny_decoder, make_work(LABELS, seed=1), examples=3, max_length=256)
    other.fit(intent_rows, intent_rows)
    assert other.examples != made.examples


def test_few_shot_leaves_room_for_the_question(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    notices: list[str] = []
    made = few_shot(tiny_decoder, make_work(LABELS, notices=notices), examples=50)
    made.fit(intent_rows, intent_rows)
    used = len(made.template.prompt(Row(""), made.examples))
    assert 0 < len(made.examples) < 50 and used <= EXAMPLES_SHARE * 256
    assert f"shows {len(made.examples)} of 50 examples" in notices[0]
    assert len(made.predict(intent_rows[:2], quietly)) == 2


def test_few_shot_takes_shorter_rows_where_long_ones_do_not_fit(
    tiny_decoder: Path, make_work: Make
) -> None:
    rows = [Row("my card " * 300, "lost_card"), Row("my pin", "change_pin")]
    made = few_shot(tiny_decoder, make_work(LABELS), examples=1)
    made.fit(Rows(tuple(rows)), Rows(()))
    assert [row.text for row in made.examples] == ["my pin"]
    with pytest.raises(DataError, match="not one example fits"):
        few_shot(tiny_decoder, make_work(LABELS)).fit(Rows((rows[0],)), Rows(()))


def test_examples_with_a_history_survive_saving(
    tiny_decoder: Path, make_work: Make, tmp_path: Path
) -> None:
    history = (Turn("user", "hello"), Turn("assistant", "world"))
    made = few_shot(tiny_decoder, make_work(), examples=1)
    made.fit(Rows((Row("é", "中", history),)), Rows(()))
    made.save(tmp_path)
    (read,) = FewShot.load(tmp_path, make_work()).examples
    assert (read.text, read.answer, read.history) == ("é", "中", history)
