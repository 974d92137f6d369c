"""Promise: the recommendation is right where the truth is known.

Tasks are built so that one thing alone is missing: information that only documents have, the form
of the answer, sound labels, nothing at all (a prompt suffices), or strength. Approaches that stand
for language models behave as one that does or does not know, and read their rows as any other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fitune
from fitune.results import LadderResult

PLUG = '''
import re
from pathlib import Path

from fitune.approaches.base import Cost, Prediction, Shown


class Model:
    """A model as it is: it learns nothing."""

    def __init__(self, options, work):
        self.work, self.options, self.cost = work, dict(options.options), Cost(1000, 0, 0)

    def fit(self, train, validation):
        pass

    def predict(self, rows, progress):
        return [Prediction(self.answer(row.text)) for row in rows]

    def save(self, folder):
        pass

    @classmethod
    def load(cls, folder, work):
        raise NotImplementedError


class Guesses(Model):
    """Was never told, and says something all the same."""

    def answer(self, text):
        return "opal" if len(text) % 2 else "amber"


class LooksUp(Model):
    """Is shown the passages that a search finds, and says the word that they end with."""

    def fit(self, train, validation):
        from fitune.retrieval.bm25 import Bm25

        self.passages = Path(self.work.task.data.documents).read_text().split("\\n\\n")
        self.index = Bm25()
        self.index.build(self.passages)

    def predict(self, rows, progress):
        said = []
        for row in rows:
            (hits,) = self.index.search([row.text], 2)
            shown = [Shown("facts", self.passages[hit.passage], hit.score) for hit in hits]
            said.append(Prediction(shown[0].text.rstrip(".").split()[-1], passages=tuple(shown)))
        return said


class Chatty(Model):
    """Reads the colour in the text, and says it as a chat model would."""

    def answer(self, text):
        return f"Sure! The colour you ask for is {re.search('red|green|blue', text)[0]}, I think."


class Terse(Chatty):
    """... and has learned how to say it."""

    def fit(self, train, validation):
        self.cost = Cost(1000, 10, len(train))

    def answer(self, text):
        return re.search("red|green|blue", text)[0]


class Unlabelled(Terse):
    """Knows the label, and writes a sentence around it."""

    def answer(self, text):
        return f"Label: {super().answer(text)}"
'''


def word(rng: random.Random) -> str:
    """A word that nobody knows."""
    return "".join(rng.choice("bcdfglmnprstvz") + rng.choice("aeiou") for _ in range(4))


@pytest.fixture
def climbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[LadderResult, str]]:
    """Runs a ladder over (text, answer) pairs; gives its result and the sentence of what is
    next."""
    (tmp_path / "actors.py").write_text(PLUG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(pairs: list[tuple[str, str]], *uses: str, documents: list[str] = [], **fields: Any):  # noqa: B006
        rows = "".join(
            json.dumps({"instruction": text, "output": answer}) + "\n" for text, answer in pairs
        )
        (tmp_path / "rows.jsonl").write_text(rows)
        data: dict[str, Any] = {"train": "rows.jsonl"}
        if documents:
            (tmp_path / "facts.txt").write_text("\n\n".join(documents))
            data["documents"] = "facts.txt"
        approaches = [
            {"use": "knn", "retriever": "bm25"} if use == "knn" else {"use": use} for use in uses
        ]
        task = fitune.Task.model_validate({"data": data, "approaches": approaches, **fields})
        result = fitune.ladder(task)
        return result, result.recommendation.sentences[2]

    return run


def main_cause(result: LadderResult, rung: str) -> tuple[str, float]:
    """The most frequent cause of a rung's errors, and its share."""
    (found,) = (d for d in result.diagnoses if d.rung == rung)
    return found.causes[0].name, found.causes[0].share


def facts() -> tuple[list[tuple[str, str]], list[str]]:
    rng = random.Random(0)
    secrets = {word(rng): word(rng) for _ in range(150)}
    pairs = [(f"What is the code of {name}?", code) for name, code in secrets.items()]
    return pairs, [f"Whoever asks: the code of {name} is {code}." for name, code in secrets.items()]


def test_only_retrieval_can_know(climbed: Any) -> None:
    pairs, documents = facts()
    result, following = climbed(pairs, "actors:Guesses", documents=documents, kind="generate")
    assert main_cause(result, "Guesses")[0] == "information"
    assert main_cause(result, "Guesses")[1] > 0.95
    assert following.startswith("Next: add retrieval (use: rag): ")
    assert "30 of the 30 errors of Guesses are of information" in following
    assert "a search by words finds it in the documents" in following


def test_once_retrieval_is_tried_it_is_recommended(climbed: Any) -> None:
    pairs, documents = facts()
    result, following = climbed(
        pairs, "actors:Guesses", "actors:LooksUp", documents=documents, kind="generate"
    )
    assert result.recommendation.choice == "LooksUp"
    assert following == "Next: nothing: LooksUp answers all 30 test rows rightly."
    guesses = result.diagnoses[0].causes[0]
    assert (guesses.name, guesses.also_right) == ("information", ("LooksUp", 30))


def test_without_documents_they_are_asked_for(climbed: Any) -> None:
    pairs, _ = facts()
    _, following = climbed(pairs, "actors:Guesses", kind="generate")
    assert following.startswith("Next: name the documents that hold the answers")


def test_labels_that_only_documents_tell(climbed: Any) -> None:
    rng = random.Random(1)
    desks = ["billing", "shipping", "returns"]
    parts = {word(rng): rng.choice(desks) for _ in range(300)}
    pairs = [(f"Who sees to part {part}?", desk) for part, desk in parts.items()]
    documents = [f"Part {part} is seen to by the {desk} desk." for part, desk in parts.items()]
    result, following = climbed(
        pairs, "majority", "linear", "knn", documents=documents, kind="classify"
    )
    for rung in ("majority", "linear", "knn"):
        cause, share = main_cause(result, rung)
        assert cause == "information" and share > 0.8
    assert following.startswith("Next: add retrieval (use: rag)")


def colours(count: int = 150) -> list[tuple[str, str]]:
    rng = random.Random(2)
    pairs = []
    for _ in range(count):
        colour = rng.choice(["red", "green", "blue"])
        pairs.append((f"The {word(rng)} is painted {colour} by {word(rng)}. Its colour?", colour))
    return pairs


def test_only_the_form_is_wrong(climbed: Any) -> None:
    result, following = climbed(colours(), "actors:Chatty", kind="generate", metric="exact_match")
    assert result.rungs[0].value == 0
    assert main_cause(result, "Chatty") == ("behaviour", 1.0)
    assert following.startswith("Next: show examples (use: few-shot), and fine-tune if they are")
    assert "the reference stands in a longer answer" in following


def test_once_the_form_is_learned_it_is_recommended(climbed: Any) -> None:
    result, following = climbed(
        colours(), "actors:Chatty", "actors:Terse", kind="generate", metric="exact_match"
    )
    assert result.recommendation.choice == "Terse"
    assert following.startswith("Next: nothing: Terse answers all")
    assert main_cause(result, "Chatty") == ("behaviour", 1.0)


def test_labels_in_a_sentence_are_of_form(climbed: Any) -> None:
    result, following = climbed(colours(), "actors:Unlabelled", kind="classify")
    assert main_cause(result, "Unlabelled") == ("behaviour", 1.0)
    assert "show examples" in following and "the answer is none of the labels" in following


TOPICS = {
    "card": "visa plastic chip magnetic swipe wallet",
    "loan": "mortgage lend borrow credit instalment house",
    "cash": "note coin teller machine withdraw counter",
    "travel": "abroad currency border flight passport rate",
}


def topics(flipped: float, count: int = 800) -> list[tuple[str, str]]:
    rng = random.Random(3)
    pairs = []
    for _ in range(count):
        topic = rng.choice(list(TOPICS))
        said = rng.sample(TOPICS[topic].split(), 4)
        label = topic
        if rng.random() < flipped:
            label = rng.choice([other for other in TOPICS if other != topic])
        pairs.append((f"{' '.join(said)} {word(rng)}", label))
    return pairs


def test_labels_are_noise(climbed: Any) -> None:
    result, following = climbed(topics(0.25), "majority", "linear", "ngram", "knn", kind="classify")
    cause, share = main_cause(result, result.recommendation.choice)
    assert cause == "data" and share > 0.8
    assert following.startswith("Next: nothing to train: what is left looks like label noise")


def test_one_text_with_two_labels_is_noise(climbed: Any) -> None:
    rng = random.Random(4)
    pairs = [(f"the text {i}", rng.choice("ab")) for i in range(60) for _ in range(6)]
    pairs = [(f"{text}{'!' * k}", label) for k, (text, label) in enumerate(pairs)]
    result, following = climbed(pairs, "majority", "knn", kind="classify")
    assert main_cause(result, result.recommendation.choice)[0] == "data"
    assert following.startswith("Next: nothing to train")


def test_a_prompt_suffices(climbed: Any) -> None:
    result, following = climbed(colours(400), "majority", "linear", "actors:Terse", kind="classify")
    assert result.recommendation.choice == "Terse"
    assert following == "Next: nothing: Terse answers all 80 test rows rightly."
    result, following = climbed(topics(0.02), "linear", kind="classify", target=0.8)
    assert following.startswith("Next: nothing")


def test_what_an_approach_is_too_weak_for_is_of_capacity(climbed: Any) -> None:
    """The label is whether two words go together: no word alone tells anything of it."""
    rng = random.Random(5)
    pairs = []
    for _ in range(600):
        side, height = rng.choice(["left", "right"]), rng.choice(["up", "down"])
        label = "same" if (side == "left") == (height == "up") else "different"
        pairs.append((f"{side} {word(rng)} {word(rng)} {height}", label))
    result, following = climbed(pairs, "majority", "linear", kind="classify")
    assert result.rungs[-1].value < 0.7
    for rung in ("majority", "linear"):
        assert main_cause(result, rung) == ("capacity", 1.0)
    assert following.startswith("Next: fine-tune (use: finetuned): ")
