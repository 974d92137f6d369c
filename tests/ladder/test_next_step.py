"""The third sentence: which failure calls for which step."""

from __future__ import annotations

from typing import Any

import pytest

from fitune.evaluation.significance import Interval
from fitune.ladder.diagnose import Cause, Diagnosis
from fitune.ladder.next_step import FORM, next_step
from fitune.ladder.rung import Rung


def rung(use: str, value: float = 0.5) -> Rung:
    return Rung(use, use, None, None, "accuracy", value, Interval(0.4, 0.6), {}, None, None,
                1, 1.0, 1.0, 1, 1, 1)  # fmt: skip


def step(
    cause: str,
    *uses: str,
    reason: str = "seen",
    documents: bool = True,
    shown: tuple[str, ...] = (),
    target: float | None = None,
    right: tuple[str, int] | None = None,
) -> str:
    """The sentence for a ladder of those approaches of which the first is recommended."""
    causes = (Cause(cause, 8, 0.8, ((reason, 5), ("else", 3)), (), right),)
    diagnoses = [Diagnosis(use, 20, 10, use in shown, causes) for use in uses]
    rungs = [rung(use) for use in uses]
    return next_step(rungs[0], rungs, diagnoses, target=target, documents=documents)


@pytest.mark.parametrize(
    ("cause", "uses", "more", "expected"),
    [
        ("information", ["prompt"], {}, "add retrieval (use: rag)"),
        ("information", ["prompt"], {"documents": False}, "name the documents that hold"),
        ("information", ["rag", "prompt"], {"shown": ("rag",)}, "search better (more passages"),
        ("information", ["prompt", "rag"], {"shown": ("rag",)}, "or show the passages to a str"),
        ("behaviour", ["prompt"], {"reason": FORM[0]}, "show examples (use: few-shot)"),
        ("behaviour", ["prompt", "few-shot"], {"reason": FORM[0]}, "fine-tune (use: finetuned)"),
        ("behaviour", ["prompt"], {}, "fine-tune (use: finetuned)"),
        ("behaviour", ["finetuned"], {}, "give more rows of the kind that fails"),
        ("behaviour", ["prompt", "finetuned"], {}, "use a fine-tuned rung"),
        ("capacity", ["linear"], {}, "fine-tune (use: finetuned)"),
        ("capacity", ["linear", "finetuned"], {}, "try a larger model, or give more rows"),
    ],
)
def test_which_failure_calls_for_which_step(
    cause: str, uses: list[str], more: dict[str, Any], expected: str
) -> None:
    said = step(cause, *uses, **more)
    assert said.startswith("Next: ") and said.endswith(".")
    assert expected in said
    assert f"8 of the 10 errors of {uses[0]} are of {cause}" in said


def test_noise_calls_for_clean_labels() -> None:
    said = step("data", "linear", "finetuned")
    assert said.startswith("Next: nothing to train: what is left looks like label noise, as 8 of")
    assert said.endswith("clean these labels first.")


def test_who_answers_them_rightly_is_named() -> None:
    assert step("capacity", "a", "b", right=("b", 6)).endswith("; b answers 6 of them rightly.")
    assert "answers" not in step("capacity", "a", right=("a", 0))


def test_where_the_target_is_reached_nothing_is_needed() -> None:
    said = step("capacity", "linear", target=0.5)
    assert said.startswith("Next: nothing, as the target is reached; to go beyond it, fine-tune")
    assert not step("capacity", "linear", target=0.6).startswith("Next: nothing")


def test_without_errors_there_is_nothing_to_do() -> None:
    one = rung("prompt", 1.0)
    said = next_step(
        one, [one], [Diagnosis("prompt", 20, 0, False, ())], target=None, documents=False
    )
    assert said == "Next: nothing: prompt answers all 20 test rows rightly."
