"""Texts → vectors, by an encoder with the pooling it was trained with.

Knows models, tokens and prompts; knows nothing of passages' places, indexes or searches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fitune.data.batches import micro_batches
from fitune.errors import ModelError
from fitune.models.load import load_tokenizer, load_trunk
from fitune.models.pooling import Pooling, PoolingMode, read_pooling
from fitune.models.quiet import quiet
from fitune.models.source import ModelSource, resolve_source

Vectors = npt.NDArray[np.float32]

BATCH_TOKENS = 4096
"""Most tokens, padding included, in one forward pass."""

_AT_ONCE = 4096  # texts tokenized together: bounds what tokens take of memory


class Encoder:
    """A model that says alike of what means alike, as vectors of length one.

    Args:
        model: a packaged name, a folder, a Hub id in the local cache, or a source that was found.
        query_prefix, passage_prefix: put before each text, as the model was trained with, e.g.
            "query: " and "passage: " for E5 (Wang et al., arXiv:2212.03533, section 4).
        pooling: of token vectors; default: as the model's folder says.
        max_length: the most tokens of a text that are read; default: as the model was trained.
        device: `cpu` or `cuda`.

    Raises:
        ModelError: there is no such model, it has no weights or tokenizer, or does not say how it
            pools and `pooling` is not given.

    Attributes:
        name: of the model.
        dimension: numbers of a vector.
        parameters: of the model.
        max_length: tokens of a text that are read, special tokens and prefix included.
    """

    def __init__(
        self,
        model: str | ModelSource = "minilm-l6",
        *,
        query_prefix: str = "",
        passage_prefix: str = "",
        pooling: PoolingMode | None = None,
        max_length: int | None = None,
        device: str = "cpu",
    ) -> None:
        import torch

        source = resolve_source(model) if isinstance(model, str) else model
        said = read_pooling(source.folder)
        if pooling is None:
            require_pooling(source)
        self.name = source.name
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix
        self._device = device
        self.tokenizer = load_tokenizer(source)
        self._model = load_trunk(source, dtype=torch.float32, device=device)
        self._pooling = Pooling(pooling or said.mode, normalize=True)  # type: ignore[union-attr]
        self.dimension = int(self._model.config.get_text_config().hidden_size)
        self.parameters = sum(p.numel() for p in self._model.parameters())
        limits = [
            max_length,
            said.max_length if said else None,
            getattr(self._model.config, "max_position_embeddings", None),
            # Tokenizers that set no limit say 10 to the power of 30.
            self.tokenizer.model_max_length if self.tokenizer.model_max_length < 1e9 else None,
        ]
        self.max_length = min([limit for limit in limits if limit], default=512)

    @property
    def options(self) -> dict[str, Any]:
        """What to construct it with again, as JSON."""
        return {
            "model": self.name,
            "query_prefix": self.query_prefix,
            "passage_prefix": self.passage_prefix,
            "pooling": self._pooling.mode,
            "max_length": self.max_length,
        }

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, ``[texts, dimension]``."""
        return self._encode([self.query_prefix + text for text in texts], None)[0]

    def passages(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> tuple[Vectors, int]:
        """Vectors of passages, ``[texts, dimension]``, and of how many only the first `max_length`
        tokens were read."""
        return self._encode([self.passage_prefix + text for text in texts], progress)

    def tokens(self, text: str) -> list[int]:
        """The character each token of a text begins at, for cutting it into passages."""
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer of '{self.name}' does not say where its tokens stand in a text",
                fix="save it with a tokenizer.json, or cut passages by words",
            )
        with quiet():  # texts longer than the model reads are what cutting is for
            spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [start for start, _ in spans["offset_mapping"]]

    @property
    def passage_tokens(self) -> int:
        """The most tokens of a passage that is read as a whole."""
        own = self.tokenizer(self.passage_prefix)["input_ids"]
        return self.max_length - len(own)

    def _encode(
        self, texts: list[str], progress: Callable[[int, int], None] | None
    ) -> tuple[Vectors, int]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        truncated = 0
        for begin in range(0, len(texts), _AT_ONCE):
            part = texts[begin : begin + _AT_ONCE]
            with quiet():  # which warns of texts that are too long
                tokens = self.tokenizer(part)["input_ids"]
                long = [row for row, ids in enumerate(tokens) if len(ids) > self.max_length]
                for row in long:  # once more, since special tokens at the end must stay
                    tokens[row] = self.tokenizer(
                        part[row], truncation=True, max_length=self.max_length
                    )["input_ids"]
            truncated += len(long)
            for rows in micro_batches(range(len(part)), list(map(len, tokens)), BATCH_TOKENS):
                vectors[[begin + row for row in rows]] = self._forward([tokens[r] for r in rows])
            if progress:
                progress(begin + len(part), len(texts))
        return vectors, truncated

    def _forward(self, tokens: list[list[int]]) -> Vectors:
        import torch

        width = max(1, *map(len, tokens))
        ids = torch.full((len(tokens), width), self.tokenizer.pad_token_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, its in enumerate(tokens):
            ids[row, : len(its)] = torch.tensor(its)
            mask[row, : max(1, len(its))] = 1  # without any token, attention is not a number
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = self._pooling(hidden, mask)
        result: Vectors = pooled.cpu().numpy()
        return result


def require_pooling(source: ModelSource) -> None:
    """
    Raises:
        ModelError: the model does not say how its token vectors become one.
    """
    if read_pooling(source.folder) is None:
        raise ModelError(
            f"'{source.name}' does not say how its token vectors become one",
            fix="use a sentence-transformers model, or give pooling: mean, cls, max or last",
        )
