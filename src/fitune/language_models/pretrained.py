"""A causal language model as it is, with the tokens of its own tokenizer.

Knows model sources and transformers; learns nothing. Its perplexity is per token of its own; by
bits per byte it is comparable with other models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from fitune.errors import ModelError
from fitune.language_models import Floats, Ids
from fitune.language_models.neural import LOGITS, count
from fitune.language_models.vocabulary import Vocabulary, vocabulary_of
from fitune.language_models.windows import drawn, last_window, score_in_windows
from fitune.models.architecture import describe
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.source import resolve_source
from fitune.runs import explain_damage, read_json, write_json

CONTEXT = 1024
"""Tokens that a model reads at once at most: more helps little here, and takes memory."""


class Pretrained:
    """A decoder as a `LanguageModel`.

    The end of a sequence is the model's end-of-text token, which also stands before the first token
    where the model has none for that. That token has no probability inside a sequence.

    Args:
        name: a packaged name, a folder, a GGUF file or a Hub id.
        device: `cpu` or `cuda`.

    Raises:
        ModelError: there is no such model, it is no decoder, or it has no end-of-text token.
    """

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        source = resolve_source(name)
        architecture = describe(source)
        if architecture.kind != "decoder":
            raise ModelError(
                f"'{name}' is an {architecture.kind} ({architecture.model_type}), which does not "
                "predict the next token",
                fix="use a decoder such as smollm2-135m",
            )
        tokenizer = load_tokenizer(source)
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer of '{name}' has no end-of-text token",
                fix="set eos_token in its tokenizer_config.json",
            )
        self.name = name
        self.vocabulary: Vocabulary = vocabulary_of(tokenizer)
        self._end = int(tokenizer.eos_token_id)
        start = tokenizer.bos_token_id
        self._start = self._end if start is None else int(start)
        self._context = min(CONTEXT, architecture.max_length)
        self.network = load_decoder(source, dtype=torch.float32, device=device)

    def fit(self, train: Sequence[Ids], validation: Sequence[Ids] = ()) -> None:
        """Nothing is learned."""

    @torch.inference_mode()
    def log_probabilities(self, sequences: Sequence[Ids]) -> list[Floats]:
        """As `LanguageModel`; long sequences as `windows` says."""

        def judge(ids: torch.Tensor, targets: torch.Tensor) -> Floats:
            there = targets >= 0
            logits = self._logits(ids)[there.to(self.network.device)]
            said = targets[there].to(self.network.device)
            each = -functional.cross_entropy(logits, said, reduction="none")
            return each.cpu().numpy().astype(np.float64)

        return score_in_windows(
            sequences,
            judge,
            start=self._start,
            end=self._end,
            context=self._context,
            at_once=LOGITS // len(self.vocabulary),
        )

    @torch.inference_mode()
    def next_distribution(self, prefix: Sequence[int]) -> Floats:
        """As `LanguageModel`; what the model gives to numbers that its tokenizer does not use is
        left out."""
        tokens = [self._start, *map(int, prefix)]
        begin = last_window(len(tokens), self._context)
        logits = self._logits(torch.tensor([tokens[begin:]]))[0, -1].double()
        probabilities = torch.softmax(logits, dim=-1).cpu().numpy()
        end = probabilities[self._end]
        inside = probabilities[: len(self.vocabulary)].copy()
        inside[self._end] = 0.0
        whole = np.append(inside, end)
        summed: Floats = whole / whole.sum()
        return summed

    def sample(self, length: int, *, seed: int, prefix: Sequence[int] = ()) -> list[int]:
        """As `LanguageModel`."""
        return drawn(self.next_distribution, length, seed=seed, prefix=prefix)

    def _logits(self, ids: torch.Tensor) -> torch.Tensor:
        output = self.network(input_ids=ids.to(self.network.device), use_cache=False)
        logits: torch.Tensor = output.logits
        return logits.float()

    @property
    def parameters(self) -> int:
        return count(self.network)

    def save(self, folder: Path) -> None:
        """Write the model's name; its files stay where they are."""
        write_json(folder / "model.json", {"name": self.name})

    @classmethod
    def load(cls, folder: Path) -> Pretrained:
        """Read what `save` wrote.

        Raises:
            RunError: missing or damaged.
            ModelError: the model is no longer where it was.
        """
        with explain_damage(folder / "model.json"):
            name = str(read_json(folder / "model.json")["name"])
        return cls(name)
