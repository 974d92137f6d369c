"""What can be asked, and which questions are refused in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.config import Finetuned
from fitune.errors import ConfigError, FituneError
from fitune.models.pooling import Pooling
from fitune.questions import (
    LIMITS,
    OF_INFERENCE,
    OF_TRAINING,
    SHARDS,
    Question,
    asked_inference,
    asked_sharding,
    asked_training,
    echo_of,
)
from fitune.targets import Target
from fitune.training import defaults
from memory_kit import family

CPU = Target("cpu", None, 10**9, "this machine", False, None, bf16=True, here=True)
OLD_CPU = Target("cpu", None, 10**9, "this machine", False, None, bf16=False, here=True)
OLD_GPU = Target("cuda", None, 10**9, "T4", True, (7, 5), bf16=False, here=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "--batch is 0; give a whole number from 1"),
        ({"batch": -3}, "--batch is -3"),
        ({"seq": 2.5}, "--seq is 2.5"),
        ({"rank": True}, "--rank is True"),
        ({"devices": 10**9}, "--devices is 1000000000; .*16,384"),
        ({"method": "lorra"}, "--method is 'lorra'; did you mean lora"),
        ({"objective": "prefer"}, "--objective is 'prefer'; use one of classify, masked, sft, dpo"),
        ({"inference": True, "objective": "dpo"}, "--objective is for training"),
        ({"method": "plug:fn"}, "--method is 'plug:fn'; use one of full, freeze"),
        ({"optimizer": "adam"}, "did you mean adamw"),
        ({"dtype": "fp16"}, "--dtype is 'fp16'"),
        ({"dtype": "pure-bf16", "inference": True}, "use one of fp32, bf16, fp16"),
        ({"attention": "flash"}, "use one of auto, eager, sdpa"),
        ({"inference": True, "kv_dtype": "int3"}, "did you mean int8"),
        ({"shard": "zero9"}, "--shard is 'zero9'; did you mean zero"),
        ({"price": -1.0}, "--price is -1.0"),
        ({"plot": "a.pdf"}, "neither .svg nor .html"),
        ({"inference": True, "method": "lora"}, "--method is for training"),
        ({"inference": True, "offload": True}, "--offload is for training"),
        ({"context": 9}, "--context is for answering.*add --inference"),
        ({"method": "full", "rank": 4}, "--rank is for adapters, and method 'full' has none"),
        ({"method": "head", "target_modules": "q_proj"}, "--target-modules is for adapters"),
        ({"freeze_layers": 2}, "--freeze-layers is 2, but the method is chosen by fitune"),
        ({"checkpointing": 0}, "--checkpointing is 0; give true, false, or n"),
        ({"checkpointing": "2"}, "--checkpointing is '2'"),
        ({"ema": 1.0}, "--ema is 1.0; give how much the past weighs"),
        ({"ema": "often"}, "--ema is 'often'"),
        ({"neftune": -5}, "--neftune is -5; give the noise's strength"),
        ({"virtual_tokens": 0, "method": "prompt-tuning"}, "--virtual-tokens is 0"),
        ({"virtual_tokens": 8}, "--virtual-tokens is 8, but the method is chosen by fitune; use"),
        ({"lora_init": "svd", "method": "lora"}, "--lora-init is 'svd'; use one of zero, pissa"),
        ({"lora_init": "pissa", "method": "dora"}, "--lora-init is pissa, but the method is dora"),
        ({"inference": True, "ema": 0.9}, "--ema is for training"),
        ({"measure": True, "device": "4090"}, "--measure runs on this machine"),
        ({"measure": True, "devices": 2}, "--measure runs on one device"),
        ({"model": None, "measure": True}, "--measure is about one model"),
        ({"model": None, "plot": "a.svg"}, "--plot is about one model"),
    ],
)
def test_questions_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Question(**{"model": "gpt2", **options})
    assert "\n" not in str(caught.value)


def test_every_option_has_a_side() -> None:
    """Training's and answering's options are told apart, and all counts have a limit."""
    unsaid = {name for name, value in vars(Question()).items() if value is None}
    assert {*OF_TRAINING, *OF_INFERENCE} <= {*unsaid, "offload"}
    assert not set(OF_TRAINING) & set(OF_INFERENCE)
    counts = {name for name, kind in Question.__annotations__.items() if kind == "int | None"}
    assert counts == set(LIMITS)


@given(st.dictionaries(st.sampled_from(sorted(vars(Question()))), st.integers() | st.text()))
def test_no_question_ends_in_a_traceback(options: dict[str, Any]) -> None:
    for name in ("inference", "padded", "offload", "exact", "measure", "dtypes", "explain"):
        options.pop(name, None)
    texts = {"model", "budget", "device", "attention", "target_modules", "plot"}
    options = {n: str(v) if n in texts or isinstance(v, str) else v for n, v in options.items()}
    if isinstance(options.get("price"), str):
        options.pop("price")
    try:
        Question(**options)
    except FituneError as error:
        assert "\n" not in error.fix


# -- what is chosen where nothing is said --------------------------------------------------------


def test_defaults_are_those_of_tune() -> None:
    decoder = asked_training(Question("m"), CPU, family("llama"), None)
    assert (decoder.options.method, decoder.options.dtype) == ("lora", "bf16")
    assert decoder.seq == defaults.TRAINED_LENGTH
    assert decoder.batch * decoder.seq <= 4096
    assert decoder.options.rank == Finetuned().rank
    encoder = asked_training(Question("m"), CPU, family("bert"), None)
    assert (encoder.options.method, encoder.seq) == ("full", 512)
    assert encoder.options.label_smoothing == 0.1
    pooled = asked_training(Question("m"), CPU, family("bert"), Pooling("mean", True, 128))
    assert pooled.seq == 128 and pooled.batch == 32
    assert asked_training(Question("m"), OLD_CPU, family("llama"), None).options.dtype == "fp32"


def test_answering_is_in_16_bit_where_that_is_computed() -> None:
    for target, dtype in ((CPU, "bf16"), (OLD_CPU, "fp32"), (OLD_GPU, "fp16")):
        asked = asked_inference(Question("m", inference=True), target, family("llama"))
        assert (asked.dtype, asked.context, asked.requests) == (dtype, 2048, 1)
    assert asked_inference(Question("m", inference=True), CPU, family("gpt2")).context == 1024


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("llama", {"seq": 4096}, "--seq is 4,096, more than the 2,048 tokens"),
        ("llama", {"labels": 3}, "--labels is for models that classify"),
        ("llama", {"objective": "masked"}, "--objective is 'masked', .* a decoder; use sft, dpo"),
        ("bert", {"objective": "dpo"}, "--objective is 'dpo', .* an encoder; use classify, masked"),
        ("t5", {"objective": "sft"}, "--objective is 'sft', .* an encoder-decoder; leave out"),
        ("bert", {"answer_tokens": 3}, "--answer-tokens is for models that write"),
        ("llama", {"seq": 8, "answer_tokens": 8}, "give at most 7"),
        ("llama", {"optimizer": "paged-adamw-8bit"}, "the device is cpu"),
        ("llama", {"seq": 8, "segments": 5}, "--segments is 5, and 8 tokens hold at most 4 rows"),
        ("bert", {"segments": 2}, "--segments is for rows laid end to end, .* only decoders"),
        ("llama", {"shared_prefix": 2, "padded": True}, "--shared-prefix is .* so it was asked"),
        ("llama", {"seq": 8, "shared_prefix": 7}, "--shared-prefix is 7 of a row's 8 tokens"),
        (
            "llama",
            {"seq": 40, "segments": 2, "answer_tokens": 5, "shared_prefix": 15},
            "the row needs 6 of its own",
        ),
    ],
)
def test_options_that_do_not_suit_the_model(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(FituneError, match=words):
        asked_training(Question("m", **options), CPU, family(name), None)


def test_modules_may_be_listed_with_commas() -> None:
    question = Question("m", target_modules="q_proj, v_proj")
    asked = asked_training(question, CPU, family("llama"), None)
    assert asked.options.target_modules == ("q_proj", "v_proj")


def test_how_devices_divide() -> None:
    assert asked_sharding(Question("m")) is None
    default = asked_sharding(Question("m", devices=4))
    assert default is not None and (default.devices, default.strategy) == (4, "fsdp")
    for name in SHARDS:
        made = asked_sharding(Question("m", devices=2, shard=name))
        assert made is not None and made.strategy == name.removeprefix("deepspeed-")
        assert made.library == ("deepspeed" if name.startswith("deepspeed") else "torch")
    with pytest.raises(ConfigError, match="cannot offload"):
        asked_sharding(Question("m", shard="ddp", offload=True))


def test_the_echo_says_every_option() -> None:
    question = Question("m", devices=2, shard="deepspeed-zero2")
    training = asked_training(question, CPU, family("llama"), None)
    echo = echo_of(training, question, asked_sharding(question))
    assert set(OF_TRAINING) | {"dtype", "padded", "attention", "exact", "device"} <= set(echo)
    assert (echo["devices"], echo["shard"], echo["offload"]) == (2, "deepspeed-zero2", False)
    asked = asked_inference(Question("m", inference=True), CPU, family("llama"))
    echo = echo_of(asked, Question("m", inference=True), None)
    assert set(OF_INFERENCE) | {"dtype", "padded", "attention", "exact"} <= set(echo)


@pytest.mark.parametrize(
    ("options", "plans"),
    [
        ({}, False),
        ({"budget": "1GiB"}, True),
        ({"device": "4090", "seq": 64, "optimizer": "sgd"}, True),
        ({"budget": "1GiB", "method": "full"}, False),
        ({"budget": "1GiB", "batch": 2}, False),
        ({"budget": "1GiB", "devices": 2}, False),
        ({"budget": "1GiB", "inference": True}, False),
    ],
)
def test_when_there_is_something_to_plan(options: dict[str, Any], plans: bool) -> None:
    assert Question("m", **options).wants_plan == plans
