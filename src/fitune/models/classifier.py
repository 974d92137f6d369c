"""An encoder with a classification head: rows of tokens in, one logit per label out.

Knows trunks, pooling and heads; knows nothing of losses or of which parameters train.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fitune.models.load import load_sequence_classifier, load_trunk, training_config
from fitune.models.pooling import Pooling, read_pooling
from fitune.models.source import ModelSource


class PooledClassifier(nn.Module):
    """A trunk, the pooling it was trained with, and a new linear head.

    Normalised vectors have length one, so their dot products with the head's rows stay small;
    `scale` spreads them (an inverse temperature, as in NormFace, arXiv:1704.06369, section 3.2).

    Args:
        trunk: an encoder that returns `last_hidden_state` ``[rows, tokens, hidden]``.
        labels: how many labels.
    """

    def __init__(self, trunk: Any, pooling: Pooling, labels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.trunk = trunk
        self.pooling = pooling
        self.scale = scale if pooling.normalize else 1.0
        self.head = nn.Linear(trunk.config.hidden_size, labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``[rows, tokens]`` → pooled vectors ``[rows, hidden]``, float32."""
        output = self.trunk(input_ids=input_ids, attention_mask=attention_mask)
        return self.pooling(output.last_hidden_state, attention_mask)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``[rows, tokens]`` int64 → logits ``[rows, labels]`` float32."""
        vectors = self.embed(input_ids, attention_mask)
        # The head is tiny and its inputs are already float32: bf16 here would only cost accuracy,
        # except where everything that trains is bf16.
        with torch.autocast(vectors.device.type, enabled=False):
            return self.head((vectors * self.scale).to(self.head.weight.dtype)).float()

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())


class NativeClassifier(nn.Module):
    """transformers' own sequence classifier, with the pooler its checkpoint brought."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def trunk(self) -> Any:
        return self.model.base_model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``[rows, tokens]`` int64 → logits ``[rows, labels]`` float32."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits.float()

    def head_parameters(self) -> list[nn.Parameter]:
        if hasattr(self.model, "peft_config"):  # PEFT keeps a trained copy of the head
            named = self.model.named_parameters()
            return [p for name, p in named if "modules_to_save" in name]
        trunk = {id(parameter) for parameter in self.model.base_model.parameters()}
        return [p for p in self.model.parameters() if id(p) not in trunk]


Classifier = PooledClassifier | NativeClassifier


def load_classifier(
    source: ModelSource,
    labels: tuple[str, ...],
    *,
    dtype: torch.dtype,
    device: str,
    seed: int,
    dropout: float = 0.0,
) -> Classifier:
    """An encoder ready to learn `labels`; a new head is drawn from `seed`.

    For `dropout` see `models.load.training_config`.

    A folder that says how its vectors were pooled in training (sentence-transformers) gets that
    pooling; any other encoder gets transformers' own head.

    Raises:
        ModelError: see `models.load`.
    """
    pooling = read_pooling(source.folder)
    config = training_config(source, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if pooling is None:
            return NativeClassifier(
                load_sequence_classifier(source, labels, dtype=dtype, device=device, config=config)
            )
        trunk = load_trunk(source, dtype=dtype, device=device, config=config)
        return PooledClassifier(trunk, pooling, len(labels)).to(device=device, dtype=dtype)
