"""Prompted decoders: what is asked, what is answered, and how examples are chosen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitune import config
from fitune.approaches.example_selection import balanced
from fitune.approaches.fewshot import EXAMPLES_SHARE, FewShot
from fitune.approaches.prompt import Prompt
from fitune.data.rows import Row, Rows, Turn
from fitune.errors import ConfigError, DataError, Interrupted, ModelError
from fitune.models.load import load_decoder

Make = Callable[..., Any]
LABELS = ("change_pin", "late_transfer", "lost_card")


def prompt(folder: Path, work: Any, **options: Any) -> Prompt:
    return Prompt(config.Prompt(model=str(folder), **options), work)


def few_shot(folder: Path, work: Any, **options: Any) -> FewShot:
    return FewShot(config.FewShot(model=str(folder), **options), work)


def by_hand(made: Prompt, row: Row) -> list[float]:
    """Probabilities of the labels, from one plain forward pass per label.

    None of the labels here begins another, so their words alone are looked at.
    """
    model = load_decoder(made.source, dtype=torch.float32, device="cpu")
    head = list(made.template.prompt(row, made.examples).tokens)
    sums = []
    for words in made.words:
        answer = list(made.template.answer(words, ended=False))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([head + answer])).logits[0].double()
        log_probs = torch.log_softmax(logits, -1)
        sums.append(sum(float(log_probs[len(head) - 1 + k, t]) for k, t in enumerate(answer)))
    odds = np.exp(np.array(sums) - max(sums))
    return list(odds / odds.sum())


def test_labels_are_chosen_by_likelihood(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    as_they_are = {"normalize": "sum", "calibrate": "none"}
    made = prompt(tiny_decoder, make_work(LABELS, instruction="Pick the intent."), **as_they_are)
    made.fit(intent_rows, intent_rows)
    rows = intent_rows[:4]
    for row, answer in zip(rows, made.predict(rows, quietly), strict=True):
        expected = by_hand(made, row)
        assert answer.scores == pytest.approx(expected, abs=1e-5)
        assert answer.text == LABELS[int(np.argmax(expected))]
    asked = made.template.tokenizer.decode(made.template.prompt(rows[0]).tokens)
    assert asked == (
        "<|user|>\nPick the intent.\nAnswer with exactly one of these labels: change pin, "
        f"late transfer, lost card.\n\n{rows[0].text}<|end|>\n<|assistant|>\n"
    )
    assert made.cost.trainable_parameters == made.cost.rows == 0


def test_the_end_is_read_only_where_another_label_goes_on(
    tiny_decoder: Path, make_work: Make
) -> None:
    made = prompt(tiny_decoder, make_work(("late", "late transfer", "lost card")))
    said = [made.template.answer(words, ended=False) for words in made.words]
    (end,) = set(made.template.stop_tokens) & set(made.template.answer("late"))
    assert said[1][: len(said[0])] == said[0]
    assert made._asking().answers == [(*said[0], end), said[1], said[2]]
    assert all(end not in words for words in said)


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


# Instructions, words of labels, and how likelihoods are read


def telling(
    monkeypatch: pytest.MonkeyPatch, bias: dict[str, float], *, deaf: str = "no such words"
) -> list[int]:
    """Stand in for the model: it knows each row's label by its word, but leans towards some labels
    whatever is asked; and it understands nothing under an instruction with the words `deaf`.

    Returns:
        how many rows were asked each time, filled as it goes.
    """
    asked: list[int] = []
    words = {"card": "lost_card", "transfer": "late_transfer", "pin": "change_pin"}

    def score_answers(model: Any, prompts: Any, answers: Any, **_: Any) -> np.ndarray:
        asked.append(len(prompts))
        result = np.zeros((len(prompts), len(LABELS)))
        for i, tokens in enumerate(prompts):
            text = score_answers.tokenizer.decode(tokens)  # type: ignore[attr-defined]
            said = text.rsplit("<|user|>", 1)[-1].rsplit("\n\n", 1)[-1]
            for j, label in enumerate(LABELS):
                result[i, j] = bias.get(label, 0.0) + 0.01 * (len(said) % 3)
            for word, label in words.items():
                if f"my {word} " in said and deaf not in text:
                    result[i, LABELS.index(label)] += 2.0
        return result

    monkeypatch.setattr("fitune.approaches.decoder.score_answers", score_answers)
    monkeypatch.setattr(Prompt, "_load", lambda self: _listening(self, score_answers))
    return asked


class _Model:
    def eval(self) -> _Model:
        return self


def _listening(made: Prompt, score_answers: Any) -> Any:
    score_answers.tokenizer = made.template.tokenizer
    return _Model()


@pytest.mark.parametrize("use", ["prompt", "few-shot"])
def test_a_biased_model_is_put_right(
    use: str, tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    telling(monkeypatch, {"late_transfer": 5.0, "lost_card": -3.0})
    notices: list[str] = []
    make = prompt if use == "prompt" else few_shot
    options: dict[str, Any] = {} if use == "prompt" else {"examples": 3}
    train, validation, test = intent_rows[:40], intent_rows[40:100], intent_rows[100:]

    def accuracy(**more: Any) -> float:
        made = make(tiny_decoder, make_work(LABELS, notices=notices), **(options | more))
        made.fit(train, validation)
        answers = made.predict(test, quietly)
        return sum(a.text == r.answer for a, r in zip(answers, test, strict=True)) / len(test)

    assert accuracy(normalize="sum", calibrate="none") < 0.4
    assert accuracy(calibrate="contextual") == accuracy(calibrate="batch") == 1
    notices.clear()
    assert accuracy() == 1, "chosen by itself"
    assert "(validation: 1.000; as they are: 0." in notices[-1]
    few = make(tiny_decoder, make_work(LABELS), **options)
    few.fit(train, validation[:49])  # too few to choose by
    assert few.options["calibrate"] == "none" and few.options["normalize"] == "sum"


def test_rows_that_average_are_not_those_that_choose(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = telling(monkeypatch, {})
    prompt(tiny_decoder, make_work(LABELS)).fit(intent_rows[:30], intent_rows[30:90])
    assert asked == [3, 30, 60], "questions without content, training rows, validation rows"
    asked.clear()
    prompt(tiny_decoder, make_work(LABELS), calibrate="batch", normalize="mean").fit(
        intent_rows[:30], intent_rows[30:90]
    )
    assert asked == [30], "nothing is left to choose"
    asked.clear()
    prompt(tiny_decoder, make_work(LABELS), calibrate="none", normalize="sum").fit(
        intent_rows[:30], intent_rows[30:90]
    )
    assert asked == []
    with pytest.raises(DataError, match=r"of 1 none is left that fits and is no example"):
        few_shot(tiny_decoder, make_work(LABELS), examples=1, calibrate="batch").fit(
            intent_rows[:1], Rows(())
        )


def test_the_best_instruction_is_kept(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    telling(monkeypatch, {}, deaf="DEAF")
    notices: list[str] = []
    work = make_work(LABELS, instruction="DEAF one", notices=notices)
    made = prompt(tiny_decoder, work, instructions=["DEAF two", "Hear.", "Hear as well."])
    made.fit(intent_rows[:40], intent_rows[40:60])
    assert made.instruction == "Hear."
    assert made.options["instruction"].startswith("Hear.\nAnswer with exactly one of")
    assert "instruction 3 of 4 is kept (0.3" in notices[0] and "1.000, 1.000" in notices[0]
    made.save(tmp_path)
    read = Prompt.load(tmp_path, work)
    assert read.predict(intent_rows[:5], quietly) == made.predict(intent_rows[:5], quietly)
    assert read.instruction == "Hear."
    none = prompt(tiny_decoder, work, instructions=["Hear."])
    none.fit(intent_rows, Rows(()))
    assert none.instruction == "DEAF one", "without validation rows, the first"
    alone = prompt(tiny_decoder, make_work(LABELS), instructions=["Hear."])
    assert alone.options["instruction"].startswith("Hear.")


def test_the_best_instruction_is_kept_where_answers_are_written(
    tiny_decoder: Path, make_work: Make, quietly: Any
) -> None:
    first = prompt(tiny_decoder, make_work(instruction="why how", max_answer_tokens=4))
    second = prompt(tiny_decoder, make_work(instruction="card card card", max_answer_tokens=4))
    first.max_new_tokens = second.max_new_tokens = 4
    asked = Rows(tuple(Row(f"money {word}") for word in ("fast", "slow", "blue")))
    texts = [a.text for a in second.predict(asked, quietly)]
    assert texts != [a.text for a in first.predict(asked, quietly)]
    validation = Rows(tuple(Row(r.text, t) for r, t in zip(asked, texts, strict=True)))
    work = make_work(instruction="why how", max_answer_tokens=4)
    made = prompt(tiny_decoder, work, instructions=["card card card"])
    made.fit(Rows((Row("a", "b"),)), validation)
    assert made.instruction == "card card card"
    assert [a.text for a in made.predict(asked, quietly)] == texts


def test_ctrl_c_stops_the_search(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    work = replace(make_work(LABELS), stop_requested=lambda: True)
    with pytest.raises(Interrupted):
        prompt(tiny_decoder, work, calibrate="batch").fit(intent_rows, intent_rows)


def test_label_words_are_said_and_the_label_is_answered(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    plain = {"normalize": "sum", "calibrate": "none"}
    words = {"lost_card": "gone", "change_pin": "new code"}
    made = few_shot(tiny_decoder, make_work(LABELS), examples=3, label_words=words, **plain)
    made.fit(intent_rows, intent_rows)
    assert made.words == ("new code", "late transfer", "gone")
    seen = made.template.tokenizer.decode(made._asking().prompt(Row("why"), made.examples).tokens)
    assert "labels: new code, late transfer, gone." in seen
    for said in made.words:
        assert f"<|assistant|>\n{said}<|end|>" in seen
    assert not any(label in seen for label in LABELS)
    (answer,) = made.predict(intent_rows[:1], quietly)
    assert answer.text in LABELS
    hidden = prompt(tiny_decoder, make_work(LABELS, instruction="Pick."), show_labels=False)
    assert hidden.options["instruction"] == "Pick."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"lost_cart": "gone"}, r"'lost_cart', which is none of the 3 labels; did you mean 'lost_"),
        ({"lost_card": "x", "change_pin": "x"}, "two labels with the words 'x'"),
    ],
)
def test_label_words_that_cannot_be(
    words: dict[str, str], said: str, tiny_decoder: Path, make_work: Make
) -> None:
    with pytest.raises(ConfigError, match=said):
        prompt(tiny_decoder, make_work(LABELS), label_words=words)


def test_labels_that_differ_by_an_underscore_keep_it(tiny_decoder: Path, make_work: Make) -> None:
    assert prompt(tiny_decoder, make_work(("a_b", "a b", "c_d"))).words == ("a_b", "a b", "c_d")


# Written answers


def test_answers_end_before_a_stop_string(
    tiny_decoder: Path, make_work: Make, quietly: Any
) -> None:
    asked = Rows(tuple(Row(f"my {word}") for word in ("card", "pin", "code now", "old cash")))
    work = make_work(max_answer_tokens=12)
    free = prompt(tiny_decoder, work).predict
    made = prompt(tiny_decoder, work)
    made.max_new_tokens = 12
    whole = [a.text for a in made.predict(asked, quietly)]
    stops = (whole[0][2:4], whole[1][3:5], whole[2][1])
    cut = prompt(tiny_decoder, work, stop=stops)
    cut.max_new_tokens = 12
    for text, answer in zip(whole, cut.predict(asked, quietly), strict=True):
        ends = [text.index(stop) for stop in stops if stop in text]
        assert answer.text == text[: min(ends, default=len(text))].strip()
        assert answer.stopped or not ends
    assert free is not None


def test_the_likeliest_choice_is_the_answer(
    tiny_decoder: Path, make_work: Make, quietly: Any, tmp_path: Path
) -> None:
    choices = ("red", "green please", "blue")
    asked = Rows(tuple(Row(f"what is {word}") for word in ("fast", "slow", "old", "new")))
    made = prompt(tiny_decoder, make_work(), choices=choices)
    made.fit(Rows((Row("a", "red"),)), Rows(()))
    same = prompt(tiny_decoder, make_work(choices), show_labels=False, normalize="sum",
                  calibrate="none")  # fmt: skip
    for answer, other in zip(made.predict(asked, quietly), same.predict(asked, quietly),
                             strict=True):  # fmt: skip
        assert (answer.text, answer.stopped, answer.scores) == (other.text, True, None)
    made.save(tmp_path)
    assert Prompt.load(tmp_path, make_work()).predict(asked, quietly) == made.predict(
        asked, quietly
    )


@pytest.mark.parametrize("approach", ["prompt", "few-shot"])
def test_answers_keep_to_a_json_schema(
    approach: str, tiny_decoder: Path, make_work: Make, quietly: Any, tmp_path: Path
) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"],
              "additionalProperties": False}  # fmt: skip
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(schema))
    notices: list[str] = []
    work = make_work(max_answer_tokens=30, notices=notices)
    make = prompt if approach == "prompt" else few_shot
    made = make(tiny_decoder, work, json_schema=str(path))
    made.fit(Rows((Row("a", '{"sure": true}'),)), Rows(()))
    asked = Rows(tuple(Row(f"what is {word}") for word in ("fast", "slow", "old")))
    answers = made.predict(asked, quietly)
    for answer in answers:
        assert json.loads(answer.text) in ({"sure": True}, {"sure": False}) and answer.stopped
    made.save(tmp_path / "model")
    path.unlink()  # the run does not need it
    assert type(made).load(tmp_path / "model", work).predict(asked, quietly) == answers
    notices.clear()
    short = make(tiny_decoder, make_work(max_answer_tokens=2, notices=notices), json_schema=schema)
    short.fit(Rows((Row("a", "b"),)), Rows(()))
    assert not any(answer.stopped for answer in short.predict(asked, quietly))
    assert (
        "3 of 3 answers ran into the limit of 2 tokens before their JSON was whole" in notices[-1]
    )


def test_schema_files_that_cannot_be_read(
    tiny_decoder: Path, make_work: Make, tmp_path: Path
) -> None:
    path = tmp_path / "answer.json"
    for text, said in [(None, "cannot be read"), ("{", "is not JSON"), ("[1]", "holds a list")]:
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            prompt(tiny_decoder, make_work(), json_schema=str(path))


OBJECT = {"type": "object"}


@pytest.mark.parametrize(
    ("use", "labels", "options", "said"),
    [
        ("prompt", True, {"stop": ["."]}, "stop is for tasks of kind generate"),
        ("prompt", True, {"choices": ["a"]}, "choices is for tasks of kind generate"),
        ("prompt", True, {"json_schema": OBJECT}, "json_schema is for tasks of kind generate"),
        ("prompt", False, {"show_labels": False}, "show_labels is for tasks of kind classify"),
        ("prompt", False, {"label_words": {"a": "b"}}, "label_words is for tasks of kind classify"),
        ("few-shot", False, {"normalize": "sum"}, "normalize is for tasks of kind classify"),
        ("few-shot", False, {"calibrate": "none"}, "calibrate is for tasks of kind classify"),
        ("prompt", False, {"choices": ["a"], "stop": ["."]}, "choices and stop are both given"),
        ("prompt", False, {"choices": ["a"], "json_schema": OBJECT}, "choices and json_schema"),
        ("prompt", False, {"stop": ["."], "json_schema": OBJECT}, "cut JSON in the middle"),
        ("prompt", False, {"choices": ["a", "b", "a"]}, "choices holds 'a' twice"),
        ("few-shot", True, {"retriever": "bm25"}, "retriever is for select: nearest"),
        ("few-shot", True, {"candidates": "shown"}, "candidates is for select: nearest"),
        ("few-shot", True, {"order": "similar-last"}, "order is similar-last, and with select: b"),
        ("few-shot", True, {"encoder": "x"}, "select: balanced compares nothing"),
        (
            "few-shot",
            True,
            {"select": "nearest", "retriever": "bm25", "encoder": "x"},
            "retriever: bm25 compares words",
        ),
        ("few-shot", True, {"select": "nearest", "normalize": "pmi"}, "normalize: pmi asks a q"),
        ("few-shot", True, {"select": "nearest", "calibrate": "contextual"}, "calibrate: contextu"),
        (
            "few-shot",
            True,
            {"select": "nearest", "candidates": "shown", "calibrate": "batch"},
            "leaves most out",
        ),
        (
            "few-shot",
            False,
            {"select": "nearest", "candidates": "shown"},
            "candidates is for tasks",
        ),
    ],
)
def test_options_that_contradict(
    use: str, labels: bool, options: dict[str, Any], said: str, tiny_decoder: Path, make_work: Make
) -> None:
    make = prompt if use == "prompt" else few_shot
    with pytest.raises(ConfigError, match=said):
        make(tiny_decoder, make_work(LABELS if labels else ()), **options)
