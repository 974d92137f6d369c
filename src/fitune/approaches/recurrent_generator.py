"""A recurrent network that writes an answer: one half reads, the other attends to it and writes.

Knows states and answers as token ids; knows nothing of the course of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fitune import config
from fitune.approaches.base import Prediction, Progress, Work
from fitune.approaches.decoder import room_for_answers
from fitune.approaches.recurrent_reader import Reader
from fitune.data.batches import Batch, label_batch, micro_batches
from fitune.data.encoded import Encoded
from fitune.data.rows import Rows
from fitune.language_models.recurrent import State, recurrent_layers
from fitune.language_models.vocabulary import Vocabulary
from fitune.training.kernels.head_loss import head_loss_sum
from fitune.training.loop import Validation
from fitune.training.objectives import Seq2Seq

BATCH_TOKENS = 4096
"""Most tokens (those read and room for those written) in one forward pass."""


class Writer(nn.Module):
    """An encoder and a decoder with global attention (Luong et al., arXiv:1508.04025, section 3.1).

    The decoder begins with what the encoder remembers last, says what attention finds for each of
    its states, and so reads all of a known answer in one pass: attention does not feed back into
    the decoder (their section 3.3), which would take a pass for each token.

    Args:
        end: the token that ends an answer; it also stands before the first.
    """

    def __init__(self, tokens: int, unknown: int, end: int, options: config.Recurrent) -> None:
        super().__init__()
        self.end = end
        self.reader = Reader(tokens, unknown, options)
        hidden, width = options.hidden, self.reader.width
        self.begins = nn.Linear(width, hidden)
        self.embedding = nn.Embedding(tokens, hidden)
        self.layers = recurrent_layers(
            options.cell, hidden, options.layers, dropout=options.dropout or 0.0
        )
        self.compared = nn.Linear(width, hidden, bias=False)
        self.combined = nn.Linear(width + hidden, hidden, bias=False)
        self.dropout = nn.Dropout(options.dropout or 0.0)
        self.head = nn.Linear(hidden, tokens)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """What the head makes each token of a known answer of: ``[rows, answer tokens, hidden]``.

        Args:
            ids, mask: ``[rows, tokens]`` int64.
            answers: ``[rows, answer tokens]`` int64, negative where a shorter one is padded.
        """
        states, state = self.read(ids, mask)
        before = torch.nn.functional.pad(answers[:, :-1], (1, 0), value=self.end)
        before = before.masked_fill(before < 0, self.end)
        return self.write(before, state, states, mask)[0]

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, State]:
        """The states of what is read, ``[rows, tokens, width]``, and the decoder's first."""
        states, last = self.reader(ids, mask)
        # Bahdanau et al., arXiv:1409.0473, appendix A.2.2, and from both directions.
        first = torch.tanh(self.begins(last))
        return states, (first, first.new_zeros(first.shape)) if self.lstm else first

    @property
    def lstm(self) -> bool:
        return isinstance(self.layers, nn.LSTM)

    def write(
        self, before: torch.Tensor, state: State, states: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, State]:
        """Go on after the tokens `before`, ``[rows, n]``: ``[rows, n, hidden]`` and the new state.

        Luong et al., equations 5 to 8, with the score `general`.
        """
        said, state = self.layers(self.dropout(self.embedding(before)), state)
        scores = said @ self.compared(states).transpose(1, 2)  # [rows, n, tokens]
        weights = scores.masked_fill(~mask[:, None].bool(), -torch.inf).softmax(dim=-1)
        found = torch.cat([weights @ states, said], dim=-1)
        return self.dropout(torch.tanh(self.combined(found))), state

    @torch.inference_mode()
    def greedy(self, ids: torch.Tensor, mask: torch.Tensor, most: int) -> torch.Tensor:
        """The likeliest next token, again and again: ``[rows, at most `most`]`` int64.

        A row's answer is what stands before its first `end`, and was not ended without one.
        """
        states, state = self.read(ids, mask)
        token = torch.full((len(ids), 1), self.end, dtype=torch.int64, device=ids.device)
        ended = torch.zeros_like(token, dtype=torch.bool)
        written = []
        for _ in range(most):
            hidden, state = self.write(token, state, states, mask)
            token = self.head(hidden).argmax(dim=-1)
            written.append(token)
            ended |= token == self.end
            if ended.all():
                break
        return torch.cat(written, dim=1)


class TeacherForced(Seq2Seq):
    """Cross-entropy of each token of an answer, given the input and the true tokens before it
    (Williams and Zipser, Neural Computation 1, 1989)."""

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a `Writer`."""
        assert batch.answers is not None and batch.positions is not None
        hidden = model(batch.input_ids, batch.attention_mask, batch.answers).flatten(0, 1)
        learned = hidden.index_select(0, batch.positions)
        return head_loss_sum(learned, model.head.weight, model.head.bias, batch.targets)


class Writing:
    """For generate.

    Args:
        most: tokens of an answer.
    """

    def __init__(
        self, vocabulary: Vocabulary, options: config.Recurrent, work: Work, *, most: int
    ) -> None:
        self.vocabulary, self.work, self.most = vocabulary, work, most
        self.end = len(vocabulary)
        unknown = self.end if vocabulary.unknown is None else vocabulary.unknown
        self.network = Writer(self.end + 1, unknown, self.end, options)

    @staticmethod
    def learned(train: Rows, vocabulary: Vocabulary, work: Work) -> dict[str, Any]:
        """What it knows of the training rows besides its weights, as JSON: how long an answer may
        be, in its own tokens."""
        if work.task.max_answer_tokens:
            return {"most": work.task.max_answer_tokens}
        return {"most": room_for_answers(list(map(len, vocabulary.encode_all(train.answers))))}

    def objective(self, items: Sequence[Encoded], rows: Rows) -> TeacherForced:
        answers = [(*ids.tolist(), self.end) for ids in self.vocabulary.encode_all(rows.answers)]
        return TeacherForced(items, answers, pad=self.end)

    @torch.inference_mode()
    def validate(self, items: Sequence[Encoded], rows: Rows) -> Validation:
        """The mean loss of the validation answers' tokens, as of other models that write.

        Without rows all weights score alike, so that the last are kept.
        """
        if not items:
            return Validation(None, 0.0, 0.0)
        objective = self.objective(items, rows)
        lengths = [
            len(item) + len(answer) for item, answer in zip(items, objective.answers, strict=True)
        ]
        total, count = 0.0, 0
        self.network.eval()
        for some in micro_batches(range(len(items)), lengths, BATCH_TOKENS):
            batch = objective.batch(some).to(self.work.device)
            total += float(objective.loss_sum(self.network, batch))
            count += batch.learned
        return Validation(total / count, None)

    def answer(self, items: Sequence[Encoded], progress: Progress) -> list[Prediction]:
        """One prediction an item, in order."""
        found: dict[int, Prediction] = {}
        lengths = [len(item) + self.most for item in items]
        self.network.eval()
        for some in micro_batches(range(len(items)), lengths, BATCH_TOKENS):
            batch = label_batch([items[i] for i in some], [0] * len(some), some, self.end)
            batch = batch.to(self.work.device)
            written = self.network.greedy(batch.input_ids, batch.attention_mask, self.most)
            for row, ids in zip(some, written.tolist(), strict=True):
                stopped = self.end in ids
                ids = ids[: ids.index(self.end)] if stopped else ids
                found[row] = Prediction(self.vocabulary.decode(ids), stopped=stopped)
            progress("answering", len(found), len(items))
        return [found[row] for row in range(len(items))]
