"""A second look at what was found: a cross-encoder reads query and passage together.

Knows models that score pairs of texts; knows nothing of how passages were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fitune.data.batches import micro_batches
from fitune.errors import ModelError
from fitune.models.architecture import explain_failure, read_config
from fitune.models.load import load_tokenizer
from fitune.models.quiet import quiet
from fitune.models.source import ModelSource, resolve_source
from fitune.retrieval import Hit, check_k

BATCH_TOKENS = 4096
"""Most tokens, padding included, in one forward pass."""


class Reranker:
    """A cross-encoder (Nogueira and Cho, arXiv:1901.04085, section 3.2): slower than comparing
    vectors by the number of passages, so for the first tens of them.

    Args:
        model: a folder, or a Hub id in the local cache, of a sequence classifier with one output.
        max_length: the most tokens of query and passage together; the longer of the two is cut.
            Default: as many as the model reads.
        device: `cpu` or `cuda`.

    Raises:
        ModelError: there is no such model, or it was not trained to score pairs.
    """

    def __init__(
        self, model: str | ModelSource, *, max_length: int | None = None, device: str = "cpu"
    ) -> None:
        source = resolve_source(model) if isinstance(model, str) else model
        self._tokenizer = load_tokenizer(source)
        self._model = _load(source, device)
        self._device = device
        limits = [
            max_length,
            getattr(self._model.config, "max_position_embeddings", None),
            # Tokenizers that set no limit say 10 to the power of 30.
            self._tokenizer.model_max_length if self._tokenizer.model_max_length < 1e9 else None,
        ]
        self._max_length = min([limit for limit in limits if limit], default=512)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self._model.parameters())

    def rerank(self, query: str, hits: Sequence[Hit], passages: Sequence[str], k: int) -> list[Hit]:
        """The `k` best of `hits` by this model's scores (logits), best first; equal ones in the
        order in which they were.

        Args:
            passages: all texts that were searched, which the hits' numbers point into.

        Raises:
            ConfigError: `k` is less than 1.
        """
        check_k(k)
        scores = self.scores(query, [passages[hit.passage] for hit in hits])
        scored = [Hit(hit.passage, score) for hit, score in zip(hits, scores, strict=True)]
        return sorted(scored, key=lambda hit: -hit.score)[:k]

    def scores(self, query: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers `query`: logits, higher is better."""
        import torch

        if not passages:
            return []
        with quiet():
            pairs = self._tokenizer(
                [query] * len(passages),
                list(passages),
                truncation=True,
                max_length=self._max_length,
            )
        lengths = [len(ids) for ids in pairs["input_ids"]]
        scores = np.empty(len(passages), dtype=np.float32)
        for rows in micro_batches(range(len(passages)), lengths, BATCH_TOKENS):
            with quiet(), torch.inference_mode():
                part = {name: [values[row] for row in rows] for name, values in pairs.items()}
                batch = self._tokenizer.pad(part, return_tensors="pt").to(self._device)
                scores[list(rows)] = self._model(**batch).logits[:, 0].float().cpu().numpy()
        return [float(score) for score in scores]


def _load(source: ModelSource, device: str) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    outputs = read_config(source).num_labels
    if outputs != 1:
        raise ModelError(
            f"'{source.name}' gives {outputs} numbers for a pair of texts, and a reranker gives 1",
            fix="name a cross-encoder trained to rank, such as cross-encoder/ms-marco-MiniLM-L6-v2",
        )
    try:
        with quiet():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source.location,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **source.loading_options(),
            )
    except Exception as error:
        raise explain_failure(source, error) from error
    if lacking := sorted(info["missing_keys"]):  # transformers would draw them at random
        raise ModelError(
            f"the weights of '{source.name}' lack {len(lacking):,} tensors, such as {lacking[0]}",
            fix="name a cross-encoder trained to rank, or get the whole model again",
        )
    return model.to(device).eval()
