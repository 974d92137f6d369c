"""fitune's methods again, by plain transformers, PEFT and torch in float64.

Models are tiny and random. A reference shares nothing with fitune's methods and kernels: a copy of
the base model is wrapped by hand, or by PEFT, and each parameter that trains is named.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import peft
import torch
from peft import IA3Config, LoraConfig
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DynamicCache,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from fitune.config import Finetuned

LABELS = 5
WORDS = 96
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "num_labels": LABELS,
}
"""Wide enough for four bits; a family takes those it knows. Of tied heads only the trunk is known
to the method `head`."""

Logits = Callable[..., torch.Tensor]
"""``(ids, mask)`` (and ``answers``) → logits, float64."""


@dataclass(frozen=True)
class Family:
    """How a model is called inside.

    Attributes:
        kind: of transformers' config.
        changes: to `SIZES`.
        targets: the linear layers of its trunk.
        trunk: how names of what is no head begin.
        lowest: how names of embeddings and of the first layer begin.
        heads: what is new for a classifier.
    """

    kind: str
    changes: dict[str, Any]
    targets: tuple[str, ...]
    trunk: str
    lowest: str
    heads: tuple[str, ...] = ()


GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SPECIAL = {"cls_token_id": 1, "sep_token_id": 2}
FAMILIES = {
    "llama": Family("llama", {}, GATED, "model.", r"model\.(embed|layers\.0\.)"),
    "qwen3": Family("qwen3", {}, GATED, "model.", r"model\.(embed|layers\.0\.)"),
    "gemma3": Family(
        "gemma3_text", {"sliding_window": 4}, GATED, "model.", r"model\.(embed|layers\.0\.)"
    ),
    "gpt2": Family(
        "gpt2",
        {"num_key_value_heads": 4},
        ("c_attn", "c_proj", "c_fc"),
        "transformer.",
        r"transformer\.(w[tp]e|h\.0\.)",
    ),
    "bert": Family(
        "bert",
        {"tie_word_embeddings": True},
        ("query", "key", "value", "dense"),
        "bert.",
        r"(bert\.)?(embeddings|encoder\.layer\.0\.)",
        ("classifier",),
    ),
    "modernbert": Family(
        "modernbert",
        {**SPECIAL, "tie_word_embeddings": True, "local_attention": 4},
        ("Wqkv", "Wi", "Wo"),
        "model.",
        r"(model\.)?(embeddings|layers\.0\.)",
        ("head", "classifier"),
    ),
    "t5": Family(
        "t5",
        {
            "d_kv": 16,
            "d_ff": 128,
            "feed_forward_proj": "gated-gelu",
            "num_hidden_layers": 4,  # more than there are parts in a layer, also in lists
            "num_decoder_layers": 4,
            "initializer_factor": 0.1,
            "decoder_start_token_id": 0,
        },
        ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
        "",
        r"(shared|encoder\.embed_tokens|decoder\.embed_tokens|encoder\.block\.0\.)",
    ),
    "bart": Family(
        "bart",
        {
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "decoder_start_token_id": 2,
        },
        ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        "model.",
        r"model\.(shared|\w+\.embed_tokens|encoder\.layers\.0\.)",
    ),
}


MAKERS: dict[str, Any] = {
    "sft": AutoModelForCausalLM,
    "pretrain": AutoModelForCausalLM,
    "dpo": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classify": AutoModelForSequenceClassification,
    "classify, pooled": AutoModel,
}
"""Objective → what makes its model."""


def build(family: str, make: Any, seed: int = 0) -> Any:
    """A float32 model without dropout; vectors (norms, biases) are no ones and zeros."""
    known = FAMILIES[family.partition("-")[0]]
    config = AutoConfig.for_model(known.kind, **SIZES | known.changes)
    for name, value in list(vars(config).items()):
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)
    torch.manual_seed(seed)
    more = {"add_pooling_layer": False} if make is AutoModel else {}
    model = make.from_config(config, **more)
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than at first, so that attention and activations are far from linear.
            noise = torch.randn_like(parameter)
            parameter.add_(noise, alpha=0.2 if parameter.ndim < 2 else 0.05)
    return model


# Classifiers, written out


class Pooled(nn.Module):
    """Mean of the tokens' vectors, scaled to length one, times 20, and a linear layer: what
    sentence-transformers' folders are trained as, with a head."""

    def __init__(self, trunk: Any, head: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
        vectors = [
            row[: int(count)].mean(dim=0) for row, count in zip(hidden, mask.sum(1), strict=True)
        ]
        return self.head(torch.stack([20.0 * v / v.norm() for v in vectors]))


class Native(nn.Module):
    """transformers' own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask).logits


# Methods, written out

Parameters = dict[str, nn.Parameter]
Method = Callable[[Any, Family, Finetuned, Any], tuple[Any, Parameters]]
"""``(plain model, family, options, fitune's model)`` → what gives logits, and what trains."""


def some(model: Any, wanted: Callable[[str], bool]) -> tuple[Any, Parameters]:
    return model, {name: p for name, p in model.named_parameters() if wanted(name)}


def full(plain: Any, family: Family, options: Finetuned, ours: Any) -> tuple[Any, Parameters]:
    return some(plain, lambda name: True)


def freeze(plain: Any, family: Family, options: Finetuned, ours: Any) -> tuple[Any, Parameters]:
    assert options.freeze_layers == 1
    return some(plain, lambda name: not re.match(family.lowest, name))


def head(plain: Any, family: Family, options: Finetuned, ours: Any) -> tuple[Any, Parameters]:
    if isinstance(plain, PreTrainedModel) and not hasattr(plain, family.trunk.rstrip(".")):
        return some(plain, lambda name: False)  # a trunk alone: its head is the caller's
    return some(plain, lambda name: not name.startswith(family.trunk))


def bitfit(plain: Any, family: Family, options: Finetuned, ours: Any) -> tuple[Any, Parameters]:
    classifies = type(plain).__name__.endswith("SequenceClassification")
    return some(
        plain,
        lambda name: name.endswith(".bias") or (classifies and not name.startswith(family.trunk)),
    )


def lora(plain: Any, family: Family, options: Finetuned, ours: Any) -> tuple[Any, Parameters]:
    if options.lora_init == "pissa":
        _leave_out_adapters(plain, ours, options.alpha / options.rank)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        use_rslora=options.rslora,
        use_dora=options.method == "dora",
        target_modules=list(family.targets),
        **_of_task(plain, family),
    )
    return _adapted(plain, config)


def qlora(plain: Any, family: Family, options: Finetuned, ours: Any) -> tuple[Any, Parameters]:
    """LoRA beside what four bits make of the weights, which an identity matrix reads off."""
    quantized = 0
    for name, module in ours.named_modules():
        if type(module).__name__ == "Linear4bit":
            # Of fitune's model, whose layers PEFT and a classifier wrapped.
            path = re.sub(r"^(base_model\.model\.)", "", name).removesuffix(".base_layer")
            bias = None if module.bias is None else module.bias.double()
            with torch.no_grad():
                found = module(torch.eye(module.in_features)).double()
            layer = nn.Linear(module.in_features, module.out_features, bias is not None).double()
            with torch.no_grad():
                layer.weight.copy_((found if bias is None else found - bias).T)
                if bias is not None:
                    layer.bias.copy_(bias)
            parent, _, child = path.rpartition(".")
            setattr(plain.get_submodule(parent), child, layer)
            quantized += 1
    assert quantized >= 2 * 4
    return lora(plain, family, options, ours)


def ia3(plain: Any, family: Family, options: Finetuned, ours: Any) -> tuple[Any, Parameters]:
    return _adapted(plain, IA3Config(**_of_task(plain, family)))


def prompt_tuning(
    plain: Any, family: Family, options: Finetuned, ours: Any
) -> tuple[Any, Parameters]:
    """Vectors before those of the row's words."""
    count = options.virtual_tokens
    prompt = nn.Parameter(torch.zeros(count, SIZES["hidden_size"], dtype=torch.float64))

    def logits(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        rows = len(input_ids)
        words = plain.get_input_embeddings()(input_ids)
        vectors = torch.cat([prompt.expand(rows, -1, -1), words], dim=1)
        mask = torch.cat([attention_mask.new_ones(rows, count), attention_mask], dim=1)
        output = plain(inputs_embeds=vectors, attention_mask=mask)
        output.logits = output.logits[:, count:]
        return output

    plain.requires_grad_(False)
    return logits, {"prompt_encoder.default.embedding.weight": prompt}


def prefix_tuning(
    plain: Any, family: Family, options: Finetuned, ours: Any
) -> tuple[Any, Parameters]:
    """Keys and values of each layer, before those of the row."""
    count, layers = options.virtual_tokens, SIZES["num_hidden_layers"]
    heads = getattr(plain.config, "num_key_value_heads", SIZES["num_attention_heads"])
    width = SIZES["head_dim"] * heads
    prefix = nn.Parameter(torch.zeros(count, layers * 2 * width, dtype=torch.float64))
    name = "cache" if "cache" in inspect.signature(plain.forward).parameters else "past_key_values"

    def logits(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        rows = len(input_ids)
        parts = prefix.view(count, layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
        cache = DynamicCache(config=plain.config)
        for layer, (keys, values) in enumerate(parts):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        mask = torch.cat([attention_mask.new_ones(rows, count), attention_mask], dim=1)
        return plain(input_ids=input_ids, attention_mask=mask, **{name: cache})

    plain.requires_grad_(False)
    return logits, {"prompt_encoder.default.embedding.weight": prefix}


METHODS: dict[str, Method] = {
    "full": full,
    "freeze": freeze,
    "head": head,
    "lora": lora,
    "dora": lora,
    "qlora": qlora,
    "ia3": ia3,
    "bitfit": bitfit,
    "prompt-tuning": prompt_tuning,
    "prefix-tuning": prefix_tuning,
}


def _of_task(plain: Any, family: Family) -> dict[str, Any]:
    name = type(plain).__name__
    if "SequenceClassification" in name:
        return {"task_type": "SEQ_CLS", "modules_to_save": list(family.heads)}
    if "ForConditionalGeneration" in name:
        return {"task_type": "CAUSAL_LM"}  # passes its arguments on as they are
    return {"task_type": "CAUSAL_LM" if "LM" in name else "FEATURE_EXTRACTION"}


def _adapted(plain: Any, config: Any) -> tuple[Any, Parameters]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about one another
        model = peft.get_peft_model(plain, config).double()
    return model, {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def _leave_out_adapters(plain: Any, ours: Any, scale: float) -> None:
    """PiSSA: weights and adapters together are what the weights were (equation 2)."""
    for name, module in ours.named_modules():
        if hasattr(module, "lora_A"):
            a = module.lora_A["default"].weight.double()
            b = module.lora_B["default"].weight.double()
            layer = plain.get_submodule(name.removeprefix("base_model.model."))
            product = scale * b @ a
            layer.weight.sub_(product.T if isinstance(layer, Conv1D) else product)
