"""Loading: nothing missing is made up, and tokenizers can pad."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fitune.errors import ModelError
from fitune.models.load import (
    load_decoder,
    load_sequence_classifier,
    load_tokenizer,
    load_trunk,
)
from fitune.models.source import resolve_source


def without(folder: Path, to: Path, *parts: str) -> Path:
    """A copy of a model whose weights lack every tensor with one of `parts` in its name."""
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    kept = {k: v for k, v in weights.items() if not any(part in k for part in parts)}
    assert len(kept) < len(weights)
    save_file(kept, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_those_of_the_file(tiny_decoder: Path, dtype: torch.dtype) -> None:
    model = load_decoder(resolve_source(str(tiny_decoder)), dtype=dtype, device="cpu")
    stored = load_file(tiny_decoder / "model.safetensors")
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(dtype)), name


def test_missing_weights_are_not_drawn_at_random(tiny_decoder: Path, tmp_path: Path) -> None:
    cut = without(tiny_decoder, tmp_path / "cut", "layers.1.mlp")
    with pytest.raises(ModelError, match=r"lack 3 tensors .* such as model\.layers\.1\.mlp"):
        load_decoder(resolve_source(str(cut)), dtype=torch.float32, device="cpu")


def test_more_layers_in_the_config_than_in_the_weights(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "deep")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 3}
    (folder / "config.json").write_text(json.dumps(config))
    source = resolve_source(str(folder))
    with pytest.raises(ModelError, match="lack 16 tensors"):
        load_trunk(source, dtype=torch.float32, device="cpu")
    with pytest.raises(ModelError, match="lack 16 tensors"):
        load_sequence_classifier(source, ("a", "b"), dtype=torch.float32, device="cpu")


def test_other_shapes_than_the_config_says(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "wide")
    config = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 96}
    (folder / "config.json").write_text(json.dumps(config))
    source = resolve_source(str(folder))
    for load in (
        lambda: load_trunk(source, dtype=torch.float32, device="cpu"),
        lambda: load_sequence_classifier(source, ("a",), dtype=torch.float32, device="cpu"),
    ):
        with pytest.raises(ModelError) as caught:
            load()
        assert "\n" not in str(caught.value)


def test_tied_heads_and_poolers_may_be_missing(tiny_encoder: Path, tmp_path: Path) -> None:
    """Masked language models are published without a pooler: transformers' head brings one."""
    source = resolve_source(str(without(tiny_encoder, tmp_path / "bare", "pooler")))
    load_trunk(source, dtype=torch.float32, device="cpu")
    load_sequence_classifier(source, ("a", "b"), dtype=torch.float32, device="cpu")


def test_a_tied_head_is_not_missing(tmp_path: Path, tiny_decoder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(tiny_decoder)
    config.tie_word_embeddings = True
    folder = shutil.copytree(tiny_decoder, tmp_path / "tied")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_decoder(resolve_source(str(folder)), dtype=torch.float32, device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_classifier_of_other_labels_gets_a_new_head(
    tiny_native_encoder: Path, tmp_path: Path
) -> None:
    source = resolve_source(str(tiny_native_encoder))
    three = load_sequence_classifier(source, ("a", "b", "c"), dtype=torch.float32, device="cpu")
    folder = shutil.copytree(tiny_native_encoder, tmp_path / "three")
    three.save_pretrained(folder)
    two = load_sequence_classifier(
        resolve_source(str(folder)), ("x", "y"), dtype=torch.float32, device="cpu"
    )
    assert two.classifier.weight.shape == (2, 32)
    assert two.config.id2label == {0: "x", 1: "y"}
    trunk = two.bert.encoder.layer[0].attention.self.query.weight
    assert torch.equal(trunk, three.bert.encoder.layer[0].attention.self.query.weight)


def test_a_damaged_weights_file(tiny_decoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_decoder, tmp_path / "cut")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_decoder(resolve_source(str(folder)), dtype=torch.float32, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_padding_pads_with_the_end_of_text(
    tiny_decoder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_decoder, tmp_path / "unpadded")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    assert load_tokenizer(resolve_source(str(folder))).pad_token == "</s>"
    del config["eos_token"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no padding, end-of-text or unknown token"):
        load_tokenizer(resolve_source(str(folder)))


def test_a_folder_without_a_tokenizer(tiny_decoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_decoder, tmp_path / "mute")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_tokenizer(resolve_source(str(folder)))
    assert "\n" not in str(caught.value)
