"""Fine-tuning tiny models: they learn, train what their method says, and come back the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune import config
from fitune.approaches.finetuned import Finetuned
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError, ModelError
from fitune.models.load import load_decoder, load_trunk
from fitune.models.source import resolve_source

Make = Callable[..., Any]
LABELS = ("change_pin", "late_transfer", "lost_card")
FAST = {"dtype": "fp32", "batch_size": 8, "seed": 0, "max_length": 96}


def made_from(folder: Path, work: Any, **options: Any) -> Finetuned:
    return Finetuned(config.Finetuned(model=str(folder), **{**FAST, **options}), work)


def accuracy(made: Finetuned, rows: Rows, quietly: Any) -> float:
    answers = made.predict(rows, quietly)
    return sum(p.text == r.answer for p, r in zip(answers, rows, strict=True)) / len(rows)


@pytest.fixture
def plain_rows() -> Rows:
    """Rows whose label follows from one word."""
    words = {"card": "lost_card", "transfer": "late_transfer", "pin": "change_pin"}
    other = ["the", "a", "money", "bank", "new", "old", "please", "help", "slow", "fast", "hello"]
    return Rows(
        tuple(
            Row(f"{other[i % 11]} my {word} {other[i % 7]}", words[word], source=f"row {i}")
            for i, word in enumerate(["card", "transfer", "pin"] * 32)
        )
    )


@pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("tiny_encoder", {"method": "full", "learning_rate": 3e-3, "epochs": 4}),
        ("tiny_encoder", {"method": "lora", "rank": 4, "learning_rate": 1e-2, "epochs": 4}),
        ("tiny_encoder", {"method": "head", "epochs": 8, "head_learning_rate": 3e-2}),
        ("tiny_native_encoder", {"method": "full", "learning_rate": 3e-3, "epochs": 10}),
        ("tiny_decoder", {"method": "full", "learning_rate": 5e-3, "epochs": 4}),
        ("tiny_decoder", {"method": "lora", "learning_rate": 2e-2, "epochs": 5}),
        ("tiny_base_decoder", {"method": "full", "learning_rate": 5e-3, "epochs": 10}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["method"],
)
def test_it_learns_and_comes_back_the_same(
    fixture: str,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
    make_work: Make,
    plain_rows: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    work = make_work(LABELS)
    made = made_from(request.getfixturevalue(fixture), work, **options)
    train, test = plain_rows[:72], plain_rows[72:]
    made.fit(train, test)
    assert accuracy(made, test, quietly) >= 0.75  # chance is a third
    made.save(tmp_path / "model")
    read = Finetuned.load(tmp_path / "model", work)
    assert read.predict(test, quietly) == made.predict(test, quietly)
    assert read.cost == made.cost
    assert read.predict(Rows(()), quietly) == []


def test_the_intents_are_learned_well_above_chance(
    tiny_encoder: Path, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    made = made_from(tiny_encoder, make_work(LABELS), learning_rate=3e-3, epochs=10)
    made.fit(intent_rows[:96], intent_rows[96:])
    assert made.options["method"] == "full"
    assert accuracy(made, intent_rows[96:], quietly) > 0.6


def test_free_answers_are_learned_and_end_by_themselves(
    tiny_decoder: Path, make_work: Make, quietly: Any, tmp_path: Path
) -> None:
    colours = {"sky": "the colour is blue", "sun": "the colour is red", "sea": "green"}
    rows = Rows(tuple(Row(f"what is the {w} {i}", colours[w]) for i in range(20) for w in colours))
    work = make_work(instruction="Say the colour.")
    made = made_from(tiny_decoder, work, method="full", learning_rate=1e-2, epochs=30, patience=99)
    made.fit(rows[:48], rows[48:])
    answers = made.predict(rows[48:], quietly)
    assert [p.text for p in answers] == rows[48:].answers
    assert all(p.stopped for p in answers)
    made.save(tmp_path / "model")
    assert Finetuned.load(tmp_path / "model", work).predict(rows[48:], quietly) == answers


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("method", "options", "stay"),
    [
        ("full", {}, ()),
        ("freeze", {"freeze_layers": 1}, ("embeddings.", "encoder.layer.0.")),
        ("freeze", {"freeze_layers": 2}, ("embeddings.", "encoder.layer.")),
        ("head", {}, ("embeddings.", "encoder.")),
    ],
)
def test_exactly_what_the_method_says_trains(
    method: str,
    options: dict[str, Any],
    stay: tuple[str, ...],
    tiny_encoder: Path,
    make_work: Make,
    plain_rows: Rows,
) -> None:
    source = resolve_source(str(tiny_encoder))
    before = weights(load_trunk(source, dtype=torch.float32, device="cpu"))
    made = made_from(
        tiny_encoder, make_work(LABELS), method=method, epochs=1, learning_rate=1e-3, **options
    )
    made.fit(plain_rows[:24], plain_rows[24:30])
    moved = changed(before, weights(made.tuner.model.trunk))
    # The pooler is not part of mean pooling: no gradient reaches it.
    expected = {n for n in before if not n.startswith((*stay, "pooler."))}
    assert moved == expected
    head = 3 * 32 + 3
    sizes = {n: p.numel() for n, p in made.tuner.model.trunk.named_parameters()}
    trained = sum(size for n, size in sizes.items() if not n.startswith(stay or ("none",)))
    assert trained + head - made.cost.trainable_parameters in (0, 32 * 32 + 32)


@pytest.mark.parametrize("fixture", ["tiny_encoder", "tiny_native_encoder", "tiny_decoder"])
def test_adapters_leave_the_base_bit_for_bit(
    fixture: str, request: pytest.FixtureRequest, make_work: Make, plain_rows: Rows
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    source = resolve_source(str(folder))
    load = load_decoder if fixture == "tiny_decoder" else load_trunk
    base = weights(load(source, dtype=torch.float32, device="cpu"))
    made = made_from(folder, make_work(LABELS), method="lora", rank=4, epochs=1, learning_rate=1e-2)
    made.fit(plain_rows[:24], plain_rows[24:30])
    tuner: Any = made.tuner
    inner = (
        tuner.model
        if fixture == "tiny_decoder"
        else getattr(tuner.model, "model" if fixture == "tiny_native_encoder" else "trunk")
    )
    model = inner.get_base_model()
    if fixture == "tiny_native_encoder":
        model = model.bert
    after = weights(model)
    for name, tensor in base.items():
        kept = after.get(name)
        if kept is None:
            module, _, kind = name.rpartition(".")
            kept = after[f"{module}.base_layer.{kind}"]
        assert torch.equal(kept, tensor), name
    # B starts at zero, so wherever it has moved, the adapter was trained.
    lora_b = [t for name, t in after.items() if "lora_B" in name and "pooler" not in name]
    assert lora_b and all(t.abs().sum() > 0 for t in lora_b)
    trainable = {n for n, p in tuner.model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or "modules_to_save" in n or n.startswith("head.") for n in trainable)


def test_a_whole_model_needs_neither_its_base_nor_the_jinja_file(
    tiny_decoder: Path,
    tiny_encoder: Path,
    make_work: Make,
    plain_rows: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    jinja = tmp_path / "own.jinja"
    jinja.write_text(
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    for folder in (tiny_decoder, tiny_encoder):
        base = shutil.copytree(folder, tmp_path / "base")
        work = make_work(LABELS, chat_template=str(jinja), folder=folder.name)
        made = made_from(base, work, method="full", epochs=1, learning_rate=1e-3)
        made.fit(plain_rows[:24], plain_rows[24:30])
        made.save(tmp_path / folder.name)
        answers = made.predict(plain_rows[:6], quietly)
        shutil.rmtree(base)
        kept = jinja.read_text()
        jinja.unlink()
        read = Finetuned.load(tmp_path / folder.name, work)
        assert read.predict(plain_rows[:6], quietly) == answers
        jinja.write_text(kept)


def test_an_adapter_whose_base_is_gone_says_so(
    tiny_encoder: Path, make_work: Make, plain_rows: Rows, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "base")
    work = make_work(LABELS)
    made = made_from(base, work, method="lora", epochs=1)
    made.fit(plain_rows[:24], plain_rows[24:30])
    made.save(tmp_path / "model")
    shutil.rmtree(base)
    with pytest.raises(ModelError, match="there is no model"):
        Finetuned.load(tmp_path / "model", work)


@pytest.mark.parametrize(
    ("fixture", "labels", "options", "error", "sentence"),
    [
        ("tiny_encoder", (), {}, ModelError, "is an encoder, which cannot be fine-tuned for kind"),
        (
            "tiny_encoder",
            LABELS,
            {"method": "full", "freeze_layers": 1},
            ConfigError,
            "freeze_layers is 1, but method is 'full'",
        ),
        ("tiny_encoder", LABELS, {"max_length": 129}, ConfigError, "more than the 128 tokens"),
        ("tiny_decoder", LABELS, {"max_length": 257}, ConfigError, "more than the 256 tokens"),
        ("tiny_encoder", LABELS, {"method": "lorra"}, ConfigError, "lorra"),
        ("tiny_encoder", LABELS, {"optimizer": "adamm"}, ConfigError, "adamm"),
    ],
)
def test_wrong_combinations_are_refused_at_once(
    fixture: str,
    labels: tuple[str, ...],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
    request: pytest.FixtureRequest,
    make_work: Make,
) -> None:
    with pytest.raises(error, match=sentence):
        made_from(request.getfixturevalue(fixture), make_work(labels), **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "freeze", "freeze_layers": 3}, "between 1 and 2"),
        ({"method": "freeze"}, "needs freeze_layers between 1 and 2"),
        ({"method": "lora", "target_modules": ("nothing",)}, "names no module of the model"),
    ],
)
def test_options_that_do_not_fit_the_model(
    options: dict[str, Any],
    sentence: str,
    tiny_encoder: Path,
    make_work: Make,
    plain_rows: Rows,
) -> None:
    made = made_from(tiny_encoder, make_work(LABELS), epochs=1, **options)
    with pytest.raises(ConfigError, match=sentence):
        made.fit(plain_rows[:24], plain_rows[24:30])


def test_an_encoder_decoder_is_refused(tmp_path: Path, make_work: Make) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelError):
        made_from(tmp_path, make_work(LABELS))


def test_long_rows_are_counted(
    tiny_encoder: Path, make_work: Make, plain_rows: Rows, quietly: Any
) -> None:
    long = Rows((*plain_rows[:24], Row("my card " * 90, "lost_card", source="data.csv:26")))
    made = made_from(tiny_encoder, make_work(LABELS), epochs=1)
    with pytest.raises(DataError, match=r"1 of 25 training rows .* data\.csv:26, has 182"):
        made.fit(long, plain_rows[:3])
    for choice, learned in (("drop", 24), ("truncate", 25)):
        notices: list[str] = []
        data = {"train": "x.csv", "too_long": choice}
        work = make_work(LABELS, notices=notices, data=data, folder=choice)
        made = made_from(tiny_encoder, work, epochs=1)
        made.fit(long, plain_rows[:3])
        assert made.cost.rows == learned
        assert sum("1 of 25 training rows" in note for note in notices) == 1
        assert len(made.predict(long, quietly)) == 25


def test_every_default_is_visible(tiny_encoder: Path, make_work: Make, plain_rows: Rows) -> None:
    made = Finetuned(config.Finetuned(model=str(tiny_encoder), epochs=1), make_work(LABELS))
    made.fit(plain_rows[:24], plain_rows[24:30])
    unset = {name for name, value in made.options.items() if value is None}
    assert unset <= {
        "name",
        "max_train_rows",
        "freeze_layers",
        "dropout",
        "checkpoint_steps",
        "dpo_beta",
        *("adapter", "lora_plus", "class_weights", "neftune", "ema"),
        *("context", "passages", "context_tokens"),
    }
    assert made.options["max_length"] == 64  # as the encoder was trained
    assert made.options["trained"]["steps"] >= 1
