"""Recurrent language models: Elman's network, LSTM and GRU.

Knows token ids; knows nothing of text. Each sequence is read from an empty memory on, whatever
stood before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from fitune.data.batches import Batch
from fitune.language_models import Floats, Ids
from fitune.language_models.neural import (
    LOGITS,
    Learned,
    Progress,
    Training,
    alike,
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
from fitune.training.kernels.head_loss import head_loss_sum

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
"""Name → torch's layers: Elman's with tanh (Cognitive Science 14, 1990), the LSTM with a forget
gate (Gers et al., Neural Computation 12, 2000), the GRU (Cho et al., arXiv:1406.1078)."""


@dataclass(frozen=True)
class RecurrentOptions:
    """What a network is made of.

    Attributes:
        hidden: values of the memory, and of an embedding.
        layers: that read each other's output.
        dropout: share of the values between layers that are zeroed in training.
        span: tokens through which a gradient flows back; a longer sequence is learned in several
            steps that hand the memory on (truncated backpropagation through time; Williams and
            Peng, Neural Computation 2, 1990).
    """

    hidden: int = 256
    layers: int = 1
    dropout: float = 0.1
    span: int = 64


READ = 256
"""Tokens of a sequence that are scored at once: what is remembered goes on from there."""

State = Any
"""What a network remembers: a tensor, or an LSTM's two."""


def recurrent_layers(
    cell: str,
    hidden: int,
    layers: int,
    *,
    dropout: float,
    bidirectional: bool = False,
) -> nn.RNNBase:
    """Layers of `cell` that read ``[rows, tokens, hidden]`` and remember `hidden` values each, in
    each direction.

    Args:
        dropout: share of the values between layers that are zeroed in training.
    """
    made = CELLS[cell](
        hidden,
        hidden,
        layers,
        dropout=dropout if layers > 1 else 0.0,  # torch warns of it otherwise
        batch_first=True,
        bidirectional=bidirectional,
    )
    if cell == "lstm":
        # An LSTM that begins by remembering learns long dependencies sooner (Jozefowicz et al.,
        # ICML 2015, section 2.2). Torch adds two biases, of input, forget, cell, output.
        for name, bias in made.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.ones_(bias.data[hidden : 2 * hidden])
    return made


class Network(nn.Module):
    """Embedding, recurrent layers and output head; the head's weight is the embedding's (Press and
    Wolf, arXiv:1608.05859), which here always agree in size."""

    def __init__(self, tokens: int, cell: str, options: RecurrentOptions) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, options.hidden)
        self.layers = recurrent_layers(
            cell, options.hidden, options.layers, dropout=options.dropout
        )
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(options.hidden, tokens)
        # Torch's N(0, 1) would make the tied head's first logits as large as sqrt(hidden).
        nn.init.normal_(self.embedding.weight, std=options.hidden**-0.5)
        self.head.weight = self.embedding.weight
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: torch.Tensor, state: State = None) -> tuple[torch.Tensor, State]:
        """``[rows, tokens]`` int64 → ``[rows, tokens, hidden]`` and what is remembered then."""
        # Torch's layers are no faster in bf16 than in fp32 on a CPU; what counts is the head.
        with torch.autocast(tokens.device.type, enabled=False):
            hidden, state = self.layers(self.dropout(self.embedding(tokens)), state)
        return self.dropout(hidden), state


class ThroughTime:
    """Every token and the end of each sequence, each given those before it; a `Lesson`.

    Args:
        sequences: int32 token ids.
        end: the id of the end, which also stands before the first token.
        span: tokens of a sequence in one step at most.
    """

    packed = False

    def __init__(self, sequences: Sequence[Ids], end: int, span: int) -> None:
        self._sequences, self._end, self._span = sequences, end, span
        self._state: State = None

    def steps(self, rows: Sequence[int]) -> Iterator[Batch]:
        inputs, targets = padded([self._sequences[row] for row in rows], self._end)
        width = inputs.shape[1]
        pieces = -(-width // self._span)
        edges = [round(i * width / pieces) for i in range(pieces + 1)]  # about equally long
        self._state = None
        for start, stop in pairwise(edges):
            said = targets[:, start:stop].flatten()
            positions = (said >= 0).nonzero().flatten()
            part = inputs[:, start:stop]
            yield Batch(
                part, torch.ones_like(part), said[positions], positions, len(positions), tuple(rows)
            )

    def batch(self, rows: Sequence[int]) -> Batch:
        """The first step of these rows."""
        return next(self.steps(rows))

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        hidden, state = model(batch.input_ids, self._state)
        # The memory goes on to the next step, the gradient does not.
        self._state = _detached(state)
        learned = hidden.flatten(0, 1).index_select(0, batch.positions)
        return head_loss_sum(learned, model.head.weight, model.head.bias, batch.targets)


class Recurrent:
    """A recurrent network as a `LanguageModel`; the base of the three.

    Args:
        vocabulary: how many tokens there are; the end of a sequence is one more.
        progress: told of training.
        device: `cpu` or `cuda`.
    """

    cell: ClassVar[str]
    """A name of `CELLS`."""

    def __init__(
        self,
        vocabulary: int,
        options: RecurrentOptions | None = None,
        training: Training | None = None,
        *,
        progress: Progress = silent,
        device: str = "cpu",
    ) -> None:
        self.options = options or RecurrentOptions()
        self.training = training or Training()
        self.vocabulary, self.progress = vocabulary, progress
        self.learned: Learned | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            self.network = Network(vocabulary + 1, self.cell, self.options).to(device).eval()

    def fit(self, train: Sequence[Ids], validation: Sequence[Ids] = ()) -> None:
        """Learn from int32 token ids a sequence; stop early by `validation`.

        Raises:
            TrainingError: the loss is no finite number.
        """
        lengths = np.asarray([len(sequence) + 1 for sequence in train])
        # A twentieth: validation costs little beside training, and is as good a judge.
        held_out = some(validation, max(5_000, int(lengths.sum()) // 20), self.training.seed)
        self.learned = learn(
            self.network,
            ThroughTime(train, self.vocabulary, self.options.span),
            lengths,
            self.training,
            span=self.options.span,
            validate=(lambda: mean_loss(self.log_probabilities(held_out))) if held_out else None,
            progress=self.progress,
        )

    @torch.inference_mode()
    def log_probabilities(self, sequences: Sequence[Ids]) -> list[Floats]:
        """Natural logs, float64, one for each token and one for the end: ``[tokens + 1]`` each."""
        lengths = np.asarray([len(sequence) + 1 for sequence in sequences], dtype=np.int64)
        found = [np.empty(length) for length in lengths]
        at_once = min(8192, max(READ, LOGITS // (self.vocabulary + 1)))
        for rows in alike(lengths, at_once, span=READ):
            inputs, targets = padded([sequences[row] for row in rows], self.vocabulary)
            state: State = None
            for start in range(0, inputs.shape[1], READ):
                read = inputs[:, start : start + READ].to(self._device)
                said = targets[:, start : start + READ].to(self._device)
                hidden, state = self.network(read, state)
                there = said >= 0
                chosen = chosen_log_probs(hidden[there], self.network.head, said[there])
                for row, log_probs in zip(
                    rows, np.split(chosen, there.sum(dim=1).cumsum(0)[:-1].tolist()), strict=True
                ):
                    found[row][start : start + len(log_probs)] = log_probs
        return found

    @torch.inference_mode()
    def next_distribution(self, prefix: Sequence[int]) -> Floats:
        """``[vocabulary + 1]`` float64 probabilities of the token after `prefix`, the end last."""
        return self._read([self.vocabulary, *prefix], None)[0]

    @torch.inference_mode()
    def sample(self, length: int, *, seed: int, prefix: Sequence[int] = ()) -> list[int]:
        """Up to `length` tokens after `prefix`; fewer where the sequence ends before."""
        random = np.random.default_rng(seed)
        written: list[int] = []
        state: State = None
        unread = [self.vocabulary, *prefix]
        while len(written) < length:
            probabilities, state = self._read(unread, state)
            token = int(random.choice(len(probabilities), p=probabilities))
            if token == self.vocabulary:
                break
            written.append(token)
            unread = [token]
        return written

    def _read(self, tokens: Sequence[int], state: State) -> tuple[Floats, State]:
        """The distribution of what follows `tokens`, and what is remembered then."""
        ids = torch.tensor([[int(token) for token in tokens]], device=self._device)
        hidden, state = self.network(ids, state)
        return distribution(self.network.head(hidden[0, -1])), state

    @property
    def _device(self) -> torch.device:
        return self.network.head.weight.device

    @property
    def parameters(self) -> int:
        return count(self.network)

    def save(self, folder: Path) -> None:
        """Write what `load` needs: safetensors and JSON."""
        save_network(folder, self.network, as_record(self.vocabulary, self.options, self.training))

    @classmethod
    def load(cls, folder: Path) -> Recurrent:
        """Read what `save` wrote; the result answers exactly as before.

        Raises:
            RunError: missing or damaged.
        """
        return load_network(folder, cls, RecurrentOptions)


class Rnn(Recurrent):
    """Elman's network."""

    cell = "rnn"


class Lstm(Recurrent):
    """Long short-term memory."""

    cell = "lstm"


class Gru(Recurrent):
    """Gated recurrent units."""

    cell = "gru"


def padded(sequences: Sequence[Ids], end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What is read and what is to be said: ``[rows, longest + 1]`` int64 each.

    What is read begins with `end`; what is to be said ends with it, and is −1 after that.
    """
    width = max(map(len, sequences)) + 1
    inputs = np.full((len(sequences), width), end, dtype=np.int64)
    targets = np.full((len(sequences), width), -1, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        inputs[row, 1 : len(sequence) + 1] = sequence
        targets[row, : len(sequence)] = sequence
        targets[row, len(sequence)] = end
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def _detached(state: State) -> State:
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
