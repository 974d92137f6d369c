"""Saved models: read back bit for bit, and run without fitune by the lines in their README."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitune.config import Finetuned
from fitune.data.rows import Row
from fitune.data.template import ChatTemplate, TextTemplate
from fitune.errors import RunError
from fitune.inference.classify import classify
from fitune.models.classifier import NativeClassifier, PooledClassifier, load_classifier
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.save import (
    load_saved_classifier,
    load_saved_decoder,
    save_classifier,
    save_decoder,
    saved_tokenizer_folder,
)
from fitune.models.source import ModelSource, resolve_source
from fitune.quantization.weights import quantize_linear_layers
from fitune.training.methods import METHODS

LABELS = ("change_pin", "late_transfer", "lost_card")
TEXTS = ["my card is lost", "why", "the transfer of money [SEP] is late and the fee is new [MASK]"]


def randomise(model: torch.nn.Module) -> None:
    """Move every adapter and head, so that a file left out or mixed up shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or name.startswith("head.") or "classifier" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)


def run_readme(folder: Path, changes: dict[str, str], chdir: Callable[[Path], None]) -> Any:
    """Run the README's Python inside its folder and return its `logits`."""
    readme = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert "fitune" not in code
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    chdir(folder)
    return execute(code)["logits"].numpy()


def execute(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.24 by an old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        exec(code, names)
    return names


def close(found: np.ndarray, expected: np.ndarray, precision: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= precision * np.abs(expected).max()
    assert np.abs(expected).max() > 0.01  # something to compare


def in_bf16(folder: Path, to: Path) -> Path:
    """The same model with weights stored in bf16, as most published ones are."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    save_file(
        {k: v.bfloat16() for k, v in weights.items()},
        to / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((to / "config.json").read_text()) | {"dtype": "bfloat16"}
    (to / "config.json").write_text(json.dumps(config))
    return to


def tuned_classifier(source: ModelSource, method: str) -> Any:
    made = load_classifier(source, LABELS, dtype=torch.float32, device="cpu", seed=0)
    options = Finetuned(method=method, rank=4)
    if isinstance(made, PooledClassifier):
        made.trunk = METHODS[method](made.trunk, options)
    else:
        made.model = METHODS[method](made.model, options)
    randomise(made)
    return made.eval()


def answers(classifier: Any, tokenizer: Any, texts: list[str] = TEXTS) -> np.ndarray:
    template = TextTemplate(tokenizer)
    items = [template.encode(Row(text)) for text in texts]
    return classify(classifier, items, pad=tokenizer.pad_token_id, device="cpu")


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["pooled", "native"])
@pytest.mark.parametrize("stored", ["fp32", "bf16"])
def test_classifiers(
    kind: str,
    method: str,
    stored: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixture = "tiny_encoder" if kind == "pooled" else "tiny_native_encoder"
    base: Path = request.getfixturevalue(fixture)
    if stored == "bf16":
        base = in_bf16(base, tmp_path / "bf16")
    source = resolve_source(str(base))
    tokenizer = load_tokenizer(source)
    made = tuned_classifier(source, method)
    assert isinstance(made, PooledClassifier if kind == "pooled" else NativeClassifier)
    expected = answers(made, tokenizer)
    assert len({tuple(row) for row in expected}) == 3

    folder = tmp_path / "saved"
    save_classifier(folder, made, tokenizer, labels=LABELS, max_length=64)
    place = "adapter" if method == "lora" else "trunk" if kind == "pooled" else "model"
    assert saved_tokenizer_folder(folder) == folder / place
    read = load_saved_classifier(folder, source, device="cpu")
    assert not read.training
    assert np.array_equal(answers(read, tokenizer), expected)

    def chdir(to: Path) -> None:
        monkeypatch.chdir(to)

    found = run_readme(folder, {'["a text to classify"]': repr(TEXTS)}, chdir)
    close(found, expected)


@pytest.mark.parametrize("mode", ["cls", "max", "lasttoken"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_readme_pools_as_the_model_does(
    mode: str,
    normalize: bool,
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "base")
    (base / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
    if not normalize:
        modules = json.loads((base / "modules.json").read_text())
        (base / "modules.json").write_text(json.dumps(modules[:2]))
    source = resolve_source(str(base))
    tokenizer = load_tokenizer(source)
    made = tuned_classifier(source, "full")
    save_classifier(tmp_path / "saved", made, tokenizer, labels=LABELS, max_length=64)
    expected = answers(made, tokenizer)
    read = load_saved_classifier(tmp_path / "saved", source, device="cpu")
    assert np.array_equal(answers(read, tokenizer), expected)
    changes = {'["a text to classify"]': repr(TEXTS)}
    close(run_readme(tmp_path / "saved", changes, lambda to: monkeypatch.chdir(to)), expected)


def test_an_adapter_finds_a_base_that_was_named_by_a_relative_path(
    tiny_native_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_native_encoder, tmp_path / "models" / "bert")
    monkeypatch.chdir(tmp_path)
    source = resolve_source("models/bert")
    tokenizer = load_tokenizer(source)
    made = tuned_classifier(source, "lora")
    save_classifier(tmp_path / "saved", made, tokenizer, labels=LABELS, max_length=64)
    changes = {'["a text to classify"]': repr(TEXTS)}
    found = run_readme(tmp_path / "saved", changes, lambda to: monkeypatch.chdir(to))
    close(found, answers(made, tokenizer))


DECODERS = [("tiny_decoder", "full"), ("tiny_decoder", "lora")]
DECODERS += [("tiny_base_decoder", "full"), ("tiny_base_decoder", "lora")]


@pytest.mark.parametrize(("fixture", "method"), DECODERS)
@pytest.mark.parametrize("instruction", [None, "Say 'why' in a word."])
def test_decoders(
    fixture: str,
    method: str,
    instruction: str | None,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = resolve_source(str(request.getfixturevalue(fixture)))
    tokenizer = load_tokenizer(source)
    template = ChatTemplate(tokenizer, instruction=instruction)
    model = load_decoder(source, dtype=torch.float32, device="cpu")
    model = METHODS[method](model, Finetuned(method=method, rank=4)).eval()
    randomise(model)
    question = "what is my card"
    tokens = torch.tensor([template.prompt(Row(question)).tokens])
    with torch.no_grad():
        expected = model(input_ids=tokens).logits[:, -1].numpy()

    folder = tmp_path / "saved"
    save_decoder(
        folder,
        model,
        tokenizer,
        chat_template=template.jinja,
        instruction=instruction,
        stop_tokens=template.stop_tokens,
    )
    place = "adapter" if method == "lora" else "model"
    assert saved_tokenizer_folder(folder) == folder / place
    read = load_saved_decoder(folder, source, device="cpu")
    with torch.no_grad():
        assert np.array_equal(read(input_ids=tokens).logits[:, -1].numpy(), expected)
    # The saved tokenizer carries the template, so whoever has the folder sees the same tokens.
    here = ModelSource("saved", str(folder / place))
    again = ChatTemplate(load_tokenizer(here), instruction=instruction)
    assert again.encode(Row(question, "red")) == template.encode(Row(question, "red"))
    assert f"eos_token_id={list(template.stop_tokens)}" in (folder / "README.md").read_text()
    if method == "full":
        settings = json.loads((folder / "model" / "generation_config.json").read_text())
        assert settings["eos_token_id"] == list(template.stop_tokens)

    def chdir(to: Path) -> None:
        monkeypatch.chdir(to)

    close(run_readme(folder, {'"a question"': repr(question)}, chdir), expected)


def test_a_bf16_decoder_stays_bf16(
    tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its adapter was trained on bf16 weights; others would not give the same logits."""
    source = resolve_source(str(tiny_decoder))
    tokenizer = load_tokenizer(source)
    template = ChatTemplate(tokenizer)
    model = load_decoder(source, dtype=torch.bfloat16, device="cpu")
    model = METHODS["lora"](model, Finetuned(method="lora", rank=4)).eval()
    randomise(model)
    save_decoder(
        tmp_path / "saved",
        model,
        tokenizer,
        chat_template=template.jinja,
        instruction=None,
        stop_tokens=template.stop_tokens,
    )
    read = load_saved_decoder(tmp_path / "saved", source, device="cpu")
    assert {p.dtype for p in read.get_base_model().model.embed_tokens.parameters()} == {
        torch.bfloat16
    }
    tokens = torch.tensor([template.prompt(Row("why")).tokens])
    with torch.no_grad():
        expected = model(input_ids=tokens).logits[:, -1].float()
        assert torch.equal(read(input_ids=tokens).logits[:, -1].float(), expected)
    read_by_hand = run_readme_in_bf16(tmp_path / "saved", monkeypatch)
    assert torch.equal(read_by_hand.float(), expected)


def run_readme_in_bf16(folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    return execute(code.replace('"a question"', '"why"'))["logits"]


def in_four_bits(model: Any, compute_dtype: torch.dtype) -> Any:
    return quantize_linear_layers(model, compute_dtype=compute_dtype)


@pytest.mark.filterwarnings("ignore")  # of transformers' loading in four bits
@pytest.mark.parametrize(
    ("method", "dtype"), [("qlora", "fp32"), ("qlora", "pure-bf16"), ("lora", "pure-bf16")]
)
@pytest.mark.parametrize("fixture", ["wide_decoder", "tiny_decoder"])
def test_a_decoder_whose_base_is_held_in_fewer_bits(
    fixture: str,
    method: str,
    dtype: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The README does as training did; of the tiny decoder, some layers are not in four bits."""
    source = resolve_source(str(request.getfixturevalue(fixture)))
    tokenizer = load_tokenizer(source)
    template = ChatTemplate(tokenizer)
    held = torch.float32 if dtype == "fp32" else torch.bfloat16
    model = load_decoder(source, dtype=held, device="cpu")
    model = METHODS[method](model, Finetuned(method=method, rank=4, dtype=dtype)).eval()
    randomise(model)
    tokens = torch.tensor([template.prompt(Row("what is my card")).tokens])
    with torch.no_grad():
        expected = model(input_ids=tokens).logits[:, -1].float().numpy()
    save_decoder(
        tmp_path / "saved",
        model,
        tokenizer,
        chat_template=template.jinja,
        instruction=None,
        stop_tokens=template.stop_tokens,
    )
    read = load_saved_decoder(tmp_path / "saved", source, device="cpu", quantize=in_four_bits)
    adapters = {p.dtype for n, p in read.named_parameters() if "lora_" in n}
    assert adapters == {held}
    with torch.no_grad():
        assert np.array_equal(read(input_ids=tokens).logits[:, -1].float().numpy(), expected)

    def chdir(to: Path) -> None:
        monkeypatch.chdir(to)

    readme = {
        '"a question"': '"what is my card"',
        "logits[:, -1]": "logits[:, -1].float()",
    }
    found = run_readme(tmp_path / "saved", readme, chdir)
    close(found, expected, 1e-5 if dtype == "fp32" else 2e-2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("method", "dtype"), [("qlora", "fp32"), ("qlora", "bf16"), ("full", "pure-bf16")]
)
@pytest.mark.parametrize("fixture", ["wide_encoder", "wide_native_encoder"])
def test_a_classifier_whose_base_is_held_in_fewer_bits(
    fixture: str,
    method: str,
    dtype: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = resolve_source(str(request.getfixturevalue(fixture)))
    tokenizer = load_tokenizer(source)
    held = torch.bfloat16 if dtype == "pure-bf16" else torch.float32
    made: Any = load_classifier(source, LABELS, dtype=held, device="cpu", seed=0)
    options = Finetuned(method=method, rank=4, dtype=dtype)
    if isinstance(made, PooledClassifier):
        made.trunk = METHODS[method](made.trunk, options)
    else:
        made.model = METHODS[method](made.model, options)
    randomise(made)
    expected = answers(made.eval(), tokenizer)
    save_classifier(tmp_path, made, tokenizer, labels=LABELS, max_length=64)
    read = load_saved_classifier(tmp_path, source, device="cpu", quantize=in_four_bits)
    assert np.array_equal(answers(read, tokenizer), expected)

    def chdir(to: Path) -> None:
        monkeypatch.chdir(to)

    found = run_readme(tmp_path, {'["a text to classify"]': repr(TEXTS)}, chdir)
    close(found, expected, 1e-5 if dtype == "fp32" else 2e-2)


def test_nothing_is_saved_as_a_pickle(tiny_encoder: Path, tmp_path: Path) -> None:
    source = resolve_source(str(tiny_encoder))
    for method in ("full", "lora"):
        made = tuned_classifier(source, method)
        folder = tmp_path / method
        save_classifier(folder, made, load_tokenizer(source), labels=LABELS, max_length=64)
        endings = {p.suffix for p in folder.rglob("*") if p.is_file()}
        assert endings <= {".json", ".safetensors", ".md", ".txt", ".jinja"}


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damage_is_one_sentence(
    tiny_encoder: Path, tmp_path: Path, method: str, damage: str
) -> None:
    from fitune.errors import FituneError

    source = resolve_source(str(tiny_encoder))
    made = tuned_classifier(source, method)
    save_classifier(tmp_path, made, load_tokenizer(source), labels=LABELS, max_length=64)
    for path in [*sorted(tmp_path.rglob("*.safetensors")), tmp_path / "head.json"]:
        kept = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(kept[: len(kept) // 2])
        with pytest.raises(FituneError) as caught:
            load_saved_classifier(tmp_path, source, device="cpu")
        assert "\n" not in str(caught.value)
        path.write_bytes(kept)
    load_saved_classifier(tmp_path, source, device="cpu")


def test_a_head_of_other_labels_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    source = resolve_source(str(tiny_encoder))
    made = tuned_classifier(source, "full")
    save_classifier(tmp_path, made, load_tokenizer(source), labels=LABELS, max_length=64)
    about = json.loads((tmp_path / "head.json").read_text())
    about["labels"].pop()
    (tmp_path / "head.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match=r"head\.safetensors' cannot be read"):
        load_saved_classifier(tmp_path, source, device="cpu")


def test_an_adapter_without_some_of_its_weights_is_refused(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    source = resolve_source(str(tiny_encoder))
    made = tuned_classifier(source, "lora")
    save_classifier(tmp_path, made, load_tokenizer(source), labels=LABELS, max_length=64)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if "layer.0" not in k}, path)
    with pytest.raises(RunError, match="missing adapter keys"):
        load_saved_classifier(tmp_path, source, device="cpu")
