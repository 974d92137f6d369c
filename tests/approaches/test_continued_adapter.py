"""Training goes on from an adapter: it starts as that adapter ended, or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fitune import config
from fitune.approaches.finetuned import Finetuned
from fitune.data.rows import Rows
from fitune.errors import ConfigError, Interrupted, RunError
from fitune.taskfile import parse_task
from fitune.training.methods import trainable_parameters

Make = Callable[..., Any]
LABELS = ("change_pin", "late_transfer", "lost_card")
FAST = {"dtype": "fp32", "batch_size": 8, "seed": 0, "max_length": 96, "epochs": 1}


def made_from(folder: Path, work: Any, **options: Any) -> Finetuned:
    return Finetuned(config.Finetuned(model=str(folder), **{**FAST, **options}), work)


def trained(folder: Path, work: Any, to: Path, rows: Rows, **options: Any) -> Path:
    """The adapter of a short training."""
    made = made_from(folder, work, learning_rate=0.02, **options)
    made.fit(rows[:16], rows[16:24])
    made.save(to)
    return to / "adapter"


def logits(made: Finetuned, rows: Rows, quietly: Any) -> list[tuple[float, ...]]:
    return [p.scores or () for p in made.predict(rows, quietly)]


STILL = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("tiny_decoder", {"method": "lora", "rank": 3, "alpha": 5.0, "rslora": True}),
        ("tiny_decoder", {"method": "lora", "rank": 3, "lora_init": "pissa"}),
        ("tiny_decoder", {"method": "dora", "rank": 3, "target_modules": ("q_proj",)}),
        ("wide_decoder", {"method": "qlora", "rank": 3}),
        ("tiny_native_encoder", {"method": "lora", "rank": 3}),
    ],
)
def test_it_starts_as_the_adapter_ended(
    fixture: str,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
    make_work: Make,
    intent_rows: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    """A training that moves nothing answers as the first one did, and saves what it found."""
    folder, rows = request.getfixturevalue(fixture), intent_rows[24:36]
    first = made_from(folder, make_work(LABELS, folder="first"), learning_rate=0.02, **options)
    first.fit(intent_rows[:16], intent_rows[16:24])
    first.save(tmp_path / "model")
    adapter = tmp_path / "model" / "adapter"
    work = make_work(LABELS, folder="second")
    again = made_from(folder, work, method=options["method"], adapter=str(adapter), **STILL)
    again.fit(intent_rows[:16], intent_rows[16:24])
    expected = logits(first, rows, quietly)
    for found, wanted in zip(logits(again, rows, quietly), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    said = json.loads((adapter / "adapter_config.json").read_text())
    resolved = again.options
    assert (resolved["rank"], resolved["alpha"]) == (said["r"], said["lora_alpha"])
    assert set(resolved["target_modules"]) == set(said["target_modules"])
    again.save(tmp_path / "again")
    files = (d / "adapter_model.safetensors" for d in (adapter, tmp_path / "again" / "adapter"))
    before, after = (load_file(file) for file in files)
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    # The adapter's folder is not needed any more.
    shutil.rmtree(tmp_path / "model")
    read = Finetuned.load(tmp_path / "again", work)
    assert logits(read, rows, quietly) == logits(again, rows, quietly)


def test_it_learns_further_and_stopping_changes_nothing(
    tiny_decoder: Path, make_work: Make, intent_rows: Rows, tmp_path: Path
) -> None:
    adapter = trained(
        tiny_decoder, make_work(LABELS), tmp_path / "model", intent_rows, method="lora", rank=4
    )
    options: dict[str, Any] = {"adapter": str(adapter), "epochs": 2, "learning_rate": 0.01}
    whole = made_from(tiny_decoder, make_work(LABELS, folder="whole"), **options)
    whole.fit(intent_rows[:16], intent_rows[16:24])
    stopped = make_work(LABELS, folder="parts")
    asked = iter([False, *[True] * 99])
    object.__setattr__(stopped, "stop_requested", asked.__next__)
    with pytest.raises(Interrupted):
        made_from(tiny_decoder, stopped, **options).fit(intent_rows[:16], intent_rows[16:24])
    object.__setattr__(stopped, "stop_requested", lambda: False)
    parts = made_from(tiny_decoder, stopped, **options)
    parts.fit(intent_rows[:16], intent_rows[16:24])
    found, expected = (trainable_parameters(made.tuner.model) for made in (parts, whole))
    start = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert not torch.equal(tensor, start[name.replace(".default", "")])

    other = trained(
        tiny_decoder, make_work(LABELS, folder="o"), tmp_path / "o", intent_rows, rank=4, seed=3
    )
    shutil.copytree(other, adapter, dirs_exist_ok=True)
    with pytest.raises(RunError, match="other options, data or model"):
        made_from(tiny_decoder, stopped, **options).fit(intent_rows[:16], intent_rows[16:24])


@pytest.fixture
def adapter(tiny_decoder: Path, make_work: Make, intent_rows: Rows, tmp_path: Path) -> Path:
    work = make_work(LABELS, folder="adapter")
    return trained(tiny_decoder, work, tmp_path / "model", intent_rows, method="lora", rank=4)


def cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def rewrite(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


REFUSED: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "gone": (shutil.rmtree, {}, r"no adapter in '.*adapter' \(no adapter_config.json\)"),
    "no weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        {},
        "has no adapter_model.safetensors",
    ),
    "broken weights": (cut, {}, "does not fit this model, or is broken"),
    "broken description": (
        lambda folder: (folder / "adapter_config.json").write_text("{"),
        {},
        "is no description of an adapter",
    ),
    "other kind": (rewrite(peft_type="IA3"), {}, "of the kind IA3, and only LORA"),
    "rank": (id, {"rank": 8}, "rank is 8, and the adapter '.*' has 4; remove rank"),
    "alpha": (id, {"alpha": 3.0}, "alpha is 3.0, and the adapter"),
    "modules": (id, {"target_modules": ["q_proj"]}, "target_modules is q_proj, and the adapter"),
    "start": (id, {"lora_init": "pissa"}, "lora_init is pissa, and training goes on"),
    "method": (id, {"method": "dora"}, "trained with lora, and method is 'dora'"),
    "no adapter method": (id, {"method": "full"}, "adapter is .*, but method is 'full'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_sentence(
    case: str, adapter: Path, tiny_decoder: Path, make_work: Make, intent_rows: Rows
) -> None:
    change, options, sentence = REFUSED[case]
    change(adapter)
    with pytest.raises(ConfigError, match=sentence):
        made_from(tiny_decoder, make_work(LABELS), adapter=str(adapter), **options).fit(
            intent_rows[:16], intent_rows[16:24]
        )


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 1}, {"hidden_size": 64}])
def test_an_adapter_of_another_model_is_refused(
    changes: dict[str, int], adapter: Path, make_work: Make, intent_rows: Rows, tmp_path: Path
) -> None:
    from conftest import save_decoder

    other = save_decoder(tmp_path / "other", **changes)
    with pytest.raises(ConfigError, match="does not fit this model"):
        made_from(other, make_work(LABELS), adapter=str(adapter)).fit(
            intent_rows[:16], intent_rows[16:24]
        )


def test_a_relative_folder_lies_beside_the_task_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    task = parse_task(
        {
            "kind": "classify",
            "data": {"train": "rows.csv"},
            "approaches": [{"use": "finetuned", "method": "lora", "adapter": "mine"}],
        },
        folder=tmp_path,
    )
    (approach,) = task.approaches
    assert approach.adapter == str((tmp_path / "mine").resolve())  # type: ignore[union-attr]
