"""The published tables of accelerate estimate-memory, to the digit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands import estimate
from accelerate.utils import convert_bytes
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    T5Config,
)

from fitune.errors import ModelError
from fitune.memory.familiar import familiar_table, printed


def phi_3_5_mini() -> Phi3Config:
    """microsoft/Phi-3.5-mini-instruct, whose config.json points to its own code."""
    return Phi3Config(
        vocab_size=32064,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=131072,
        tie_word_embeddings=False,
        dtype="bfloat16",
        auto_map={
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
    )


def llama_2_13b() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32000,
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=40,
        num_attention_heads=40,
        num_key_value_heads=40,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        dtype="float16",
    )


PUBLISHED = {
    phi_3_5_mini: [
        ("float32", "432.02 MB", "14.23 GB", "56.94 GB"),
        ("float16", "216.01 MB", "7.12 GB", "28.47 GB"),
        ("int8", "108.01 MB", "3.56 GB", None),
        ("int4", "54.0 MB", "1.78 GB", None),
    ],
    llama_2_13b: [
        ("float32", "1.18 GB", "47.88 GB", "191.51 GB"),
        ("float16", "605.02 MB", "23.94 GB", "95.76 GB"),
        ("int8", "302.51 MB", "11.97 GB", None),
        ("int4", "151.25 MB", "5.98 GB", None),
    ],
}


@pytest.mark.parametrize("config", PUBLISHED, ids=lambda made: made.__name__)
def test_published_tables(config: Any) -> None:
    rows = familiar_table(config())
    assert [
        (
            row.dtype,
            printed(row.largest_layer_bytes),
            printed(row.total_bytes),
            row.adam_bytes if row.adam_bytes is None else printed(row.adam_bytes),
        )
        for row in rows
    ] == PUBLISHED[config]


def test_a_13b_causal_model_is_larger_than_the_table_says_by_its_head() -> None:
    """23.94 GiB is the headless model; with its head it has 26.03 GB in 16 bit."""
    half = familiar_table(llama_2_13b())[1].total_bytes
    head = 5120 * 32000 * 2
    assert half / 2**30 == pytest.approx(23.94, abs=0.005)
    assert (half + head) / 1e9 == pytest.approx(26.03, abs=0.005)


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=4),
        GPT2Config(n_embd=48, n_layer=3, n_head=4),
        T5Config(d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4),
    ],
    ids=lambda config: config.model_type,
)
def test_other_families_agree_with_the_command_itself(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(config, dtype=torch.float32)
    monkeypatch.setattr(estimate, "create_empty_model", lambda *_, **__: model)
    dtypes = ["float32", "float16", "int8", "int4"]
    args = SimpleNamespace(
        model_name="", library_name="transformers", trust_remote_code=False, dtypes=dtypes
    )
    for row, (dtype, largest, total, training) in zip(
        familiar_table(config), estimate.gather_data(args), strict=True
    ):
        most = max(training.values())
        assert (row.dtype, row.adam_bytes is None) == (dtype, most == -1)
        assert row.largest_layer_bytes == pytest.approx(largest, abs=1)
        assert row.total_bytes == pytest.approx(total, abs=1)
        assert row.adam_bytes is None or row.adam_bytes == pytest.approx(most, abs=1)


def test_the_config_is_left_as_it_was() -> None:
    config = phi_3_5_mini()
    before = config.to_dict()
    familiar_table(config)
    assert config.to_dict() == before


def test_a_class_that_transformers_lacks_falls_back_to_the_headless_model() -> None:
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    plain = familiar_table(config)
    config.auto_map = {"AutoModelForTelepathy": "telepathy.Model"}
    assert familiar_table(config) == plain


class OwnConfig(PreTrainedConfig):
    model_type = "own"


@pytest.mark.parametrize(
    "config", [OwnConfig(), LlamaConfig(hidden_act="none such")], ids=["family", "activation"]
)
def test_what_cannot_be_built_is_one_clear_sentence(config: Any) -> None:
    with pytest.raises(ModelError, match="no model can be built from this") as caught:
        familiar_table(config)
    assert "\n" not in str(caught.value)


@given(st.one_of(st.integers(0, 2**60), st.integers(0, 5000)))
def test_sizes_are_printed_as_accelerate_prints_them(size: int) -> None:
    assert printed(size) == convert_bytes(size)
