"""The published grid's cells: what each line of `cells.txt` means.

Knows names of models and how training is described; knows nothing of bytes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitune.config import Finetuned
from fitune.memory.options import Training
from fitune.models.bundled import BundledModel, bundled_config, find_bundled
from fitune.models.pooling import Pooling

CUT: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom-small": ("bloom-560m", {"n_layer": 6}),
    "falcon-small": (
        "falcon-7b",
        {"num_hidden_layers": 6, "hidden_size": 512, "num_attention_heads": 8},
    ),
    "phi-small": (
        "phi-1_5",
        {
            "num_hidden_layers": 4,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
        },
    ),
    "phi3-small": (
        "phi-3-mini",
        {
            "num_hidden_layers": 6,
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_attention_heads": 12,
            "num_key_value_heads": 12,
        },
    ),
    "qwen2-small": ("qwen2.5-0.5b", {"num_hidden_layers": 12}),
    "gemma2-small": (
        "gemma-2-2b",
        {
            "num_hidden_layers": 8,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "sliding_window": 256,
        },
    ),
    "olmo-small": (
        "olmo-1b",
        {
            "num_hidden_layers": 4,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
        },
    ),
    "olmo2-small": (
        "olmo-2-0425-1b",
        {
            "num_hidden_layers": 6,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "num_key_value_heads": 12,
        },
    ),
    "starcoder2-small": (
        "starcoder2-3b",
        {
            "num_hidden_layers": 6,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
        },
    ),
    "mixtral-small": (
        "mixtral-8x7b-v0.1",
        {
            "num_hidden_layers": 6,
            "hidden_size": 512,
            "intermediate_size": 1024,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "num_local_experts": 4,
        },
    ),
    "qwen3-moe-small": (
        "qwen3-30b-a3b",
        {
            "num_hidden_layers": 6,
            "hidden_size": 512,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "moe_intermediate_size": 256,
            "num_experts": 16,
            "num_experts_per_tok": 4,
        },
    ),
    "deepseek-v2-small": (
        "deepseek-v2-lite",
        {
            "num_hidden_layers": 4,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "kv_lora_rank": 128,
            "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 32,
            "v_head_dim": 64,
            "moe_intermediate_size": 256,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
        },
    ),
    "gpt-oss-small": (
        "gpt-oss-20b",
        {
            "num_hidden_layers": 4,
            "hidden_size": 512,
            "intermediate_size": 512,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
}
"""Models too large to be measured here, made smaller: name → bundled model, what is changed. The
vocabulary stays as it is."""


@dataclass(frozen=True)
class Cell:
    """One line of the grid.

    Attributes:
        name: the line itself.
        model: a name of the catalogue, or of `CUT`.
        training: how it is trained.
    """

    name: str
    model: str
    training: Training

    @property
    def bundled(self) -> BundledModel:
        known, _ = CUT.get(self.model, (self.model, {}))
        found = find_bundled(known)
        assert found is not None, f"no bundled model is called {known}"
        return found

    @property
    def fields(self) -> dict[str, Any]:
        """Those of the model's config.json."""
        _, changes = CUT.get(self.model, (self.model, {}))
        return {**self.bundled.config, **changes}

    @property
    def config(self) -> Any:
        """The transformers config, a new one at each call."""
        return bundled_config(dataclasses.replace(self.bundled, config=self.fields))

    @property
    def pooling(self) -> Pooling | None:
        mode = self.bundled.pooling
        return None if mode is None else Pooling(mode, normalize=True)  # type: ignore[arg-type]


def read_cells() -> tuple[Cell, ...]:
    """All cells, in the order of the file."""
    lines = Path(__file__).with_name("cells.txt").read_text("utf-8").splitlines()
    return tuple(parse(line) for line in lines if line.strip() and not line.startswith("#"))


def parse(line: str) -> Cell:
    """``"gpt2 freeze=6 momentum fp32 1×512 padded"`` → a cell; for the words see `cells.txt`."""
    model, method, optimizer, dtype, shape, *more = line.split()
    method, _, layers = method.partition("=")
    rows, tokens = shape.split("×")
    words = dict(word.partition("=")[::2] for word in more)
    padded = words.pop("padded", None) is not None
    return Cell(
        name=" ".join(line.split()),
        model=model,
        training=Training(
            options=Finetuned(
                method=method,
                freeze_layers=int(layers) if layers else None,
                optimizer=optimizer,
                dtype=dtype,  # type: ignore[arg-type]
                checkpointing=words.pop("checkpointing", None) is not None,
            ),
            batch=int(rows),
            seq=int(tokens),
            packed=not padded,
            padded=padded,
            micro_batches=int(words.pop("micro", 1)),
            answer_tokens=int(words["answers"]) if "answers" in words else None,
            attention=_attention(words),
        ),
    )


def _attention(words: dict[str, str]) -> Any:
    words = {word: value for word, value in words.items() if word != "answers"}
    assert not words.keys() - {"eager", "sdpa"}, f"unknown words {sorted(words)}"
    return next(iter(words), "auto")
