"""A decoder that learns a preference: it learns it, goes on where it stopped, and opens again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune import api, config
from fitune.approaches.finetuned import Finetuned
from fitune.approaches.preference_tuner import PreferenceTuner
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError, Interrupted
from fitune.models.quiet import quiet
from fitune.training.methods import trainable_parameters

Make = Callable[..., Any]
FAST = {"dtype": "fp32", "batch_size": 8, "seed": 0, "max_length": 96, "objective": "dpo"}


def made_from(folder: Path, work: Any, **options: Any) -> Finetuned:
    return Finetuned(config.Finetuned(model=str(folder), **{**FAST, **options}), work)


@pytest.fixture
def pairs() -> Rows:
    """Polite answers are preferred."""
    words = ["card", "pin", "fee", "bank", "money", "account", "code"]
    return Rows(
        tuple(
            Row(
                f"help my {words[i % 7]} {i}",
                f"please change my {words[i % 7]}",
                source=f"row {i}",
                rejected=f"why {words[i % 5]} arrive",
            )
            for i in range(48)
        )
    )


@pytest.mark.parametrize(
    "options",
    [
        {"method": "lora", "rank": 4, "learning_rate": 2e-2},
        {"method": "full", "learning_rate": 2e-3, "label_smoothing": 0.1},
    ],
    ids=lambda options: options["method"],
)
def test_it_learns_what_is_preferred_and_comes_back_the_same(
    options: dict[str, Any],
    tiny_decoder: Path,
    make_work: Make,
    pairs: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    notices: list[str] = []
    work = make_work(notices=notices, max_answer_tokens=4)
    made = made_from(tiny_decoder, work, epochs=4, **options)
    made.fit(pairs[:32], pairs[32:])
    records = [json.loads(x) for x in (work.folder / "metrics.jsonl").read_text().splitlines()]
    held_out = [r for r in records if r["kind"] == "validation"]
    assert held_out[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: no preference yet
    assert held_out[-1]["score"] == 1.0 and made.trained is not None
    assert made.trained.best.loss is not None and made.trained.best.loss < 0.6
    assert "higher implicit reward in 100.0% of 16 pairs (95 % interval 79.4%" in notices[-1]
    made.save(tmp_path / "model")
    answers = made.predict(pairs[32:], quietly)
    # Without the adapter there is the reference, so the answered pairs are judged, too.
    assert ("of the answered rows" in notices[-1]) == (options["method"] == "lora")
    read = Finetuned.load(tmp_path / "model", work)
    assert read.predict(pairs[32:], quietly) == answers
    assert read.options["dpo_beta"] == 0.1


@pytest.mark.parametrize("method", ["lora", "full"])
def test_stopping_changes_nothing_and_the_reference_is_kept(
    method: str, tiny_decoder: Path, make_work: Make, pairs: Rows, monkeypatch: Any
) -> None:
    options = {"method": method, "epochs": 3, "learning_rate": 3e-3, "micro_batch_tokens": 200}

    def final(made: Finetuned) -> dict[str, torch.Tensor]:
        return trainable_parameters(made.tuner.model)

    whole = made_from(tiny_decoder, make_work(folder="whole"), **options)
    whole.fit(pairs[:32], pairs[32:])

    asked = iter([False] * 5 + [True] * 100)
    work = make_work(folder="stopped")
    stopped = made_from(
        tiny_decoder, dataclasses.replace(work, stop_requested=lambda: next(asked)), **options
    )
    with pytest.raises(Interrupted):
        stopped.fit(pairs[:32], pairs[32:])
    monkeypatch.setattr(PreferenceTuner, "_reference", None)  # it is read, not computed again
    resumed = made_from(tiny_decoder, work, **options)
    resumed.fit(pairs[:32], pairs[32:])
    for name, tensor in final(whole).items():
        assert torch.equal(final(resumed)[name], tensor), name


def test_end_to_end(tiny_decoder: Path, pairs: Rows, task_file: Callable[..., Path]) -> None:
    """From a file of pairs to a run that opens again, and to an adapter that PEFT opens alone."""
    path = task_file(
        kind="generate",
        data={"train": "pairs.jsonl"},
        max_answer_tokens=4,
        approaches=[
            {
                "use": "finetuned",
                "model": str(tiny_decoder),
                "method": "lora",
                "learning_rate": 1e-2,
                "epochs": 1,
                **{k: v for k, v in FAST.items() if k != "seed"},
            }
        ],
    )
    records = [
        {"prompt": row.text, "chosen": row.answer, "rejected": row.rejected} for row in pairs
    ]
    file = path.with_name("pairs.jsonl")
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = api.tune(path)
    assert "read as preference" in found.notes[0]
    assert any("validation pairs" in note for note in found.rung.notes)
    saved = api.load(found.run)
    text = saved.predict(["help my card 1"])[0].text
    assert isinstance(text, str)

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = next(found.run.glob("rungs/*/model/adapter"))
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(tiny_decoder)
        model = PeftModel.from_pretrained(base, folder)
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        approach: Any = saved.approach
        assert torch.equal(model.eval()(ids).logits, approach.tuner.model(ids).logits)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([Row("a", "b", source="f:1"), Row("c", "d", rejected="e")], "1 of 2 .* no rejected .*f:1"),
        ([Row("a", "b", source="f:7", rejected="b")], "1 of 1 .* equal to the chosen one.*f:7"),
    ],
)
def test_rows_that_are_no_pairs(
    rows: list[Row], sentence: str, tiny_decoder: Path, make_work: Make, pairs: Rows
) -> None:
    made = made_from(tiny_decoder, make_work(), epochs=1)
    with pytest.raises(DataError, match=sentence):
        made.fit(Rows(tuple(rows)), pairs[:8])
    with pytest.raises(DataError, match="validation rows have"):
        made.fit(pairs[:8], Rows(tuple(rows)))


@pytest.mark.parametrize(
    ("fixture", "labels", "options", "sentence"),
    [
        ("tiny_encoder", ("a", "b"), {}, "objective 'dpo' is not for .* an encoder, and kind"),
        ("tiny_decoder", ("a", "b"), {}, "objective 'dpo' is not for .* kind 'classify'"),
        ("tiny_decoder", (), {"objective": "sft", "dpo_beta": 0.2}, "dpo_beta is 0.2, but the"),
        ("tiny_decoder", (), {"label_smoothing": 0.5}, "label_smoothing is 0.5.* below 0.5"),
    ],
)
def test_wrong_combinations_are_refused_at_once(
    fixture: str,
    labels: tuple[str, ...],
    options: dict[str, Any],
    sentence: str,
    request: pytest.FixtureRequest,
    make_work: Make,
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made_from(request.getfixturevalue(fixture), make_work(labels), **options)
