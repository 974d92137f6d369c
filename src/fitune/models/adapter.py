"""PEFT's adapters: which parameters are theirs, and how they are saved.

An adapter may have taken over a part of the weights it stands beside. What is saved of it stands
beside the weights as they were: what it became, less what it was at its start, is an ordinary
adapter of twice the rank. Knows PEFT's layers; knows nothing of training.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

NAMES = ("lora_", "ia3_", "prompt_encoder.")
"""What PEFT calls adapters in a parameter's name."""

START = "start"
"""Of each of an adapter's matrices: a buffer with what it was at its start."""


def is_of_adapter(parameter: str) -> bool:
    """Whether the parameter of this name stands beside the model's own."""
    return any(name in parameter for name in NAMES)


def remember_start(model: Any) -> None:
    """Keep a copy of each of the adapter's matrices beside it, which no state holds."""
    for name, module in list(model.named_modules()):
        if name.endswith((".lora_A.default", ".lora_B.default")):
            module.register_buffer(START, module.weight.detach().clone(), persistent=False)


def save_adapter(model: Any, folder: Path) -> None:
    """Write PEFT's folder of an adapter, for the base model as it was before training.

    With ``W = R + s·B₀A₀``, ``R + s·BA = W + s·[B, -B₀][A; A₀]`` (Meng et al., arXiv:2404.02948,
    appendix C). PEFT's own conversion loses a head that trained beside the adapter. Where the base
    is in bf16, R was rounded, so that logits differ by as much as bf16 makes them uncertain.
    """
    starts = {
        name: module.get_buffer(START)
        for name, module in model.named_modules()
        if START in dict(module.named_buffers(recurse=False))
    }
    if not starts:
        model.save_pretrained(folder)
        return
    state = model.state_dict()
    for name, start in starts.items():
        now = state[f"{name}.weight"]
        is_a = ".lora_A." in name
        state[f"{name}.weight"] = torch.cat([now, start if is_a else -start], dim=0 if is_a else 1)
    kept = model.peft_config["default"]
    plain = copy.copy(kept)
    plain.init_lora_weights = True
    plain.r = 2 * kept.r
    plain.lora_alpha = kept.lora_alpha * (2**0.5 if kept.use_rslora else 2)
    model.peft_config["default"] = plain
    try:
        model.save_pretrained(folder, state_dict=state)
    finally:
        model.peft_config["default"] = kept
