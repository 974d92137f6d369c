"""The bundled configs, against the parameter counts that others publish for the same models."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from fitune.errors import ModelError
from fitune.models.architecture import Architecture, describe_config
from fitune.models.bundled import (
    BundledModel,
    bundled_config,
    bundled_models,
    find_bundled,
    near_names,
)
from fitune.models.catalogue import PACKAGED

MODELS = bundled_models()
ROUNDING = 0.01  # of a published figure that is not exact

# Stated by the makers or by the weights' files; here once more, so that no edit of the data, and
# no slip in one entry, goes unseen.
STATED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b-v0.1": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "gemma-2b": 2_506_172_416,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
    "deepseek-v2-lite": 15_706_484_224,
    "olmo-7b-hf": 6_888_095_744,
    "smollm2-135m": 134_515_008,
    "gpt2": 124_439_808,
    "gpt-neox-20b": 20_554_567_680,
    "bloom": 176_247_271_424,
    "t5-base": 222_903_552,
    "bert-base-uncased": 109_482_240,
    "roberta-base": 124_645_632,
    "deberta-v3-base": 183_831_552,
}
FAMILIES = {
    *("llama", "llama4_text", "qwen2", "qwen3", "qwen3_moe", "mistral", "mixtral", "gemma"),
    *("gemma2", "gemma3_text", "phi", "phi3", "deepseek_v2", "deepseek_v3", "olmo", "olmo2"),
    *("olmoe", "smollm3", "gpt2", "gpt_neo", "gptj", "gpt_neox", "gpt_oss", "opt", "bloom"),
    *("falcon", "starcoder2", "t5", "bart", "bert", "distilbert", "albert", "electra"),
    *("roberta", "xlm-roberta", "deberta-v2", "modernbert", "mpnet"),
}


def named(name: str) -> BundledModel:
    found = find_bundled(name)
    assert found is not None
    return found


_described: dict[str, Architecture] = {}


def described(model: BundledModel) -> Architecture:
    """As `describe_config` answers; once for models that share their config."""
    key = json.dumps(model.config, sort_keys=True)
    if key not in _described:
        _described[key] = describe_config(bundled_config(model))
    return _described[key]


def test_the_families_are_there() -> None:
    assert len(MODELS) >= 70
    assert {model.config["model_type"] for model in MODELS} == FAMILIES


@pytest.mark.parametrize("model", MODELS, ids=[model.id for model in MODELS])
def test_the_count_is_the_published_one(model: BundledModel) -> None:
    counted = described(model).parameters + sum(model.beyond.values())
    if model.exact:
        assert counted == model.parameters
    else:
        assert counted == pytest.approx(model.parameters, rel=ROUNDING)


@pytest.mark.parametrize(("name", "parameters"), STATED.items())
def test_well_known_counts(name: str, parameters: int) -> None:
    assert described(named(name)).parameters == parameters


@pytest.mark.parametrize(
    ("name", "kind", "layers", "hidden", "length"),
    [
        ("llama-3.1-405b", "decoder", 126, 16384, 131072),
        ("llama-4-scout", "decoder", 48, 5120, 10485760),
        ("deepseek-r1", "decoder", 61, 7168, 163840),
        ("gemma-3-27b", "decoder", 62, 5376, 131072),
        ("bloom", "decoder", 70, 14336, 2048),
        ("gpt-neo-2.7b", "decoder", 32, 2560, 2048),
        ("flan-t5-xxl", "encoder-decoder", 24, 4096, 2048),
        ("bart-large", "encoder-decoder", 12, 1024, 1024),
        ("roberta-base", "encoder", 12, 768, 512),
        ("electra-small", "encoder", 12, 256, 512),
        ("modernbert-large", "encoder", 28, 1024, 8192),
        ("bge-m3", "encoder", 24, 1024, 8192),
        ("minilm-l6", "encoder", 6, 384, 512),
    ],
)
def test_shapes(name: str, kind: str, layers: int, hidden: int, length: int) -> None:
    found = described(named(name))
    assert (found.kind, found.layers, found.hidden) == (kind, layers, hidden)
    assert found.max_length == length


@pytest.mark.parametrize(
    ("name", "kinds", "window"),
    [
        ("gemma-2-9b", "sf", 4096),
        ("gemma-3-12b", "sssssf", 1024),
        ("gpt-oss-20b", "sf", 128),
        ("llama-4-scout", "cccf", None),
        ("modernbert-base", "fss", 64),
        ("qwen2.5-7b", "f", None),
        ("smollm3", "f", None),
    ],
)
def test_which_layers_see_only_a_window(name: str, kinds: str, window: int | None) -> None:
    """As the papers and model cards say: f full, s sliding, c chunked, repeated over the depth."""
    config = bundled_config(named(name))
    found = "".join(kind[0] for kind in config.layer_types)
    assert found == (kinds * config.num_hidden_layers)[: config.num_hidden_layers]
    if window is not None:
        assert config.sliding_window == window


# -- what a published figure counts beyond the class -------------------------------------------


def built(auto: str, config: Any) -> Any:
    with torch.device("meta"):
        return getattr(transformers, auto).from_config(config)


def head_matrix(config: Any) -> int:
    return int(config.vocab_size * config.hidden_size)


def masked_head(config: Any) -> int:
    model = built("AutoModelForMaskedLM", config)
    inside = {id(p) for p in model.base_model.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in inside)


def routing_biases(config: Any) -> int:
    buffers = built("AutoModelForCausalLM", config).named_buffers()
    return sum(b.numel() for name, b in buffers if name.endswith("e_score_correction_bias"))


def vision(config: Any) -> int:
    """Of the model that takes images and text, less the text model.

    The vision towers are those of the published configs: Llama 4's, and SigLIP So400m/14 at 896
    pixels (arXiv:2503.19786, section 2).
    """
    if config.model_type == "llama4_text":
        seeing = {
            "hidden_size": 1408,
            "num_hidden_layers": 34,
            "num_attention_heads": 16,
            "intermediate_size": 5632,
            "image_size": 336,
            "patch_size": 14,
            "vision_output_dim": 4096,
            "projector_input_dim": 4096,
            "projector_output_dim": 4096,
            "pixel_shuffle_ratio": 0.5,
        }
        whole = transformers.Llama4Config(text_config=config.to_dict(), vision_config=seeing)
    else:
        seeing = {
            "hidden_size": 1152,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "intermediate_size": 4304,
            "image_size": 896,
            "patch_size": 14,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
        }
        whole = transformers.Gemma3Config(text_config=config.to_dict(), vision_config=seeing)
    model = built("AutoModelForImageTextToText", whole)
    parts = ("vision_model", "vision_tower", "multi_modal_projector")
    return sum(
        p.numel() for name, p in model.named_parameters() if any(part in name for part in parts)
    )


BEYOND: dict[str, Callable[[Any], int]] = {
    "output head": head_matrix,
    "output head, stored twice": head_matrix,
    "position ids, a buffer": lambda config: int(config.max_position_embeddings),
    "causal masks, which are no parameters": lambda c: int(c.n_layer * c.n_positions**2),
    "pooler": lambda config: int(config.hidden_size * (config.hidden_size + 1)),
    "masked-language-model head": masked_head,
    "routing biases, a buffer in transformers": routing_biases,
    "vision tower and projector": vision,
}


@pytest.mark.parametrize(
    ("model", "what"),
    [
        pytest.param(model, what, id=f"{model.id}: {what}")
        for model in MODELS
        for what in model.beyond
    ],
)
def test_what_a_figure_counts_beyond_follows_from_the_shapes(
    model: BundledModel, what: str
) -> None:
    """Nothing is put there to make a count match."""
    assert BEYOND[what](bundled_config(model)) == model.beyond[what]


# -- names --------------------------------------------------------------------------------------


def test_every_name_is_of_one_model() -> None:
    owner: dict[str, str] = {}
    for model in MODELS:
        assert len({name.lower() for name in (model.id, *model.aliases)}) == 1 + len(model.aliases)
        for name in model.names:
            assert owner.setdefault(name, model.id) == model.id


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("META-LLAMA/llama-2-7B-HF", "meta-llama/Llama-2-7b-hf"),
        ("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-hf"),
        ("llama-2-7b", "meta-llama/Llama-2-7b-hf"),
        (" Llama-2-7B ", "meta-llama/Llama-2-7b-hf"),
        ("gpt2", "openai-community/gpt2"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3"),
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
    ],
)
def test_found_by_id_and_alias_in_any_case(name: str, id: str) -> None:
    assert named(name).id == id


def test_packaged_names_are_found_too() -> None:
    assert {named(name).config["model_type"] for name in PACKAGED} == {"llama", "bert"}


@pytest.mark.parametrize("name", ["", "no-such-model", "llama", "meta-llama/", "../gpt2"])
def test_unknown_names_find_nothing(name: str) -> None:
    assert find_bundled(name) is None


def test_near_names() -> None:
    assert near_names("meta-lama/Llama-2-13b-hf")[0] == "meta-llama/Llama-2-13b-hf"
    assert near_names("qwen3-8") == tuple(dict.fromkeys(near_names("qwen3-8")))
    assert "Qwen/Qwen3-8B" in near_names("qwen3-8")
    assert len(near_names("llama-3-9b", 2)) == 2
    assert near_names("zzzzzzzz") == ()


# -- the data -----------------------------------------------------------------------------------


def test_entries_say_where_their_figure_is_from() -> None:
    for model in MODELS:
        assert model.source.startswith("https://"), model.id
        assert model.pooling in {None, "mean", "cls"}, model.id
        assert model.config["torch_dtype"] in {"float32", "float16", "bfloat16"}, model.id
        if not model.exact:
            assert len(str(model.parameters).rstrip("0")) <= 3, model.id


def test_a_config_is_new_at_each_call() -> None:
    model = named("mixtral-8x7b")
    before = copy.deepcopy(model.config)
    config = bundled_config(model)
    config.num_hidden_layers = 1
    assert bundled_config(model).num_hidden_layers == 32
    assert model.config == before


def test_a_family_that_transformers_does_not_know() -> None:
    model = BundledModel("a/b", (), 1, True, "https://", {"model_type": "not-yet-a-family"})
    with pytest.raises(ModelError, match=r"not-yet-a-family.*pip install --upgrade transformers"):
        bundled_config(model)


def test_reading_is_fast_and_imports_nothing_heavy() -> None:
    bundled_models.cache_clear()
    start = time.perf_counter()
    bundled_models()
    assert time.perf_counter() - start < 0.05
    code = (
        "import sys; from fitune.models.bundled import find_bundled; find_bundled('gpt2');"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
