"""A small decoder, trained from scratch by fitune's own step and kernels.

Knows token ids and transformers' Llama; knows nothing of text. Each sequence is read from its
beginning on, whatever stood before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fitune.data.batches import Batch
from fitune.data.template import Encoded, Reason
from fitune.errors import ConfigError
from fitune.language_models import Floats, Ids
from fitune.language_models.neural import (
    LOGITS,
    Learned,
    Progress,
    Training,
    as_record,
    chosen_log_probs,
    count,
    distribution,
    learn,
    load_network,
    mean_loss,
    save_network,
    silent,
    some,
)
from fitune.language_models.windows import drawn, framed, last_window, score_in_windows
from fitune.training.kernels.fused import fused_layers
from fitune.training.objectives.sft import Sft
from fitune.training.packing import can_pack


@dataclass(frozen=True)
class TransformerOptions:
    """What a decoder is made of: Llama's layers (Touvron et al., arXiv:2302.13971, section 2.2).

    Attributes:
        hidden: values of a token between layers; of the feed-forward layer inside 8/3 times as
            many, in multiples of 32.
        layers: that read each other's output.
        heads: of attention; they divide `hidden`.
        context: tokens that a prediction is made from at most.
    """

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    context: int = 256


class Pieces(Sequence[Encoded]):
    """Sequences as rows of at most `context` tokens that are read; a longer sequence is several,
    each of which begins with the token that the one before it ended with.

    Args:
        end: the id of the end, which also stands before the first token.
    """

    def __init__(self, sequences: Sequence[Ids], end: int, context: int) -> None:
        self._sequences, self._end, self._context = sequences, end, context
        pieces = [-(-(len(sequence) + 1) // context) for sequence in sequences]
        self._owner = np.repeat(np.arange(len(sequences)), pieces)
        first = np.cumsum(pieces) - pieces
        self._number = np.arange(len(self._owner)) - first[self._owner]
        whole = np.asarray([len(sequence) + 1 for sequence in sequences], dtype=np.int64)
        self.lengths = np.minimum(context, whole[self._owner] - self._number * context)
        """``[pieces]`` tokens to be learned in each."""

    def __len__(self) -> int:
        return len(self._owner)

    def __getitem__(self, index: Any) -> Any:
        sequence = self._sequences[self._owner[index]]
        start = int(self._number[index]) * self._context
        part = sequence[max(0, start - 1) : start + self._context]
        tokens = framed(part, self._end, self._end).tolist()
        first = 1 if start else 0  # the end's id stands before the first piece only
        row = tokens[first : first + int(self.lengths[index]) + 1]
        return Encoded(tuple(row), (Reason.DOCUMENT,) * len(row))


class NextToken(Sft):
    """Every token and the end of each sequence, each given those before it; a `Lesson`."""

    def steps(self, rows: Sequence[int]) -> Iterator[Batch]:
        yield self.batch(rows)


class Transformer:
    """A small Llama as a `LanguageModel`.

    Args:
        vocabulary: how many tokens there are; the end of a sequence is one more.
        progress: told of training.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: heads do not divide the hidden size into even parts.
    """

    def __init__(
        self,
        vocabulary: int,
        options: TransformerOptions | None = None,
        training: Training | None = None,
        *,
        progress: Progress = silent,
        device: str = "cpu",
    ) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        self.options = options or TransformerOptions()
        self.training = training or Training(learning_rate=2e-3, batch_tokens=1024)
        hidden, heads = self.options.hidden, self.options.heads
        if hidden % (2 * heads):  # rotary positions turn pairs of values
            raise ConfigError(
                f"a hidden size of {hidden} cannot be divided among {heads} heads in pairs",
                fix=f"use a multiple of {2 * heads}",
            )
        self.vocabulary, self.progress = vocabulary, progress
        self.learned: Learned | None = None
        config = LlamaConfig(
            vocab_size=vocabulary + 1,
            hidden_size=hidden,
            intermediate_size=-(-hidden * 8 // 3 // 32) * 32,
            num_hidden_layers=self.options.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=self.options.context,
            tie_word_embeddings=True,
            bos_token_id=vocabulary,
            eos_token_id=vocabulary,
            pad_token_id=vocabulary,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            self.network = LlamaForCausalLM(config).to(device).eval()

    def fit(self, train: Sequence[Ids], validation: Sequence[Ids] = ()) -> None:
        """Learn from int32 token ids a sequence; stop early by `validation`.

        Raises:
            TrainingError: the loss is no finite number.
        """
        pieces = Pieces(train, self.vocabulary, self.options.context)
        tokens = int(pieces.lengths.sum())
        held_out = some(validation, max(5_000, tokens // 20), self.training.seed)
        lesson = NextToken(
            pieces,
            pad=self.vocabulary,
            packed=can_pack(self.network, self.network.device.type),
            fused=True,
        )
        with fused_layers(self.network, self.training.autocast or torch.float32):
            self.learned = learn(
                self.network,
                lesson,
                pieces.lengths,
                self.training,
                span=self.options.context,
                validate=(lambda: mean_loss(self.log_probabilities(held_out)))
                if held_out
                else None,
                progress=self.progress,
            )

    @torch.inference_mode()
    def log_probabilities(self, sequences: Sequence[Ids]) -> list[Floats]:
        """As `LanguageModel`; long sequences as `windows` says."""

        def judge(ids: torch.Tensor, targets: torch.Tensor) -> Floats:
            there = targets >= 0
            hidden = self._hidden(ids)[there.to(self.network.device)]
            said = targets[there].to(self.network.device)
            return chosen_log_probs(hidden, self.network.lm_head, said)

        return score_in_windows(
            sequences,
            judge,
            start=self.vocabulary,
            end=self.vocabulary,
            context=self.options.context,
            at_once=min(8192, LOGITS // (self.vocabulary + 1)),
        )

    @torch.inference_mode()
    def next_distribution(self, prefix: Sequence[int]) -> Floats:
        """As `LanguageModel`."""
        tokens = [self.vocabulary, *map(int, prefix)]
        start = last_window(len(tokens), self.options.context)
        hidden = self._hidden(torch.tensor([tokens[start:]]))
        return distribution(self.network.lm_head(hidden[0, -1]))

    def sample(self, length: int, *, seed: int, prefix: Sequence[int] = ()) -> list[int]:
        """As `LanguageModel`."""
        return drawn(self.next_distribution, length, seed=seed, prefix=prefix)

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """``[rows, tokens, hidden]``; what stands behind a row's end changes nothing before it."""
        output = self.network.model(input_ids=ids.to(self.network.device), use_cache=False)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    @property
    def parameters(self) -> int:
        return count(self.network)

    def save(self, folder: Path) -> None:
        """Write what `load` needs: safetensors and JSON."""
        save_network(folder, self.network, as_record(self.vocabulary, self.options, self.training))

    @classmethod
    def load(cls, folder: Path) -> Transformer:
        """Read what `save` wrote; the result answers exactly as before.

        Raises:
            RunError: missing or damaged.
        """
        return load_network(folder, cls, TransformerOptions)
