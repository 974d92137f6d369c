"""Embeddings and recurrent layers: what a network that chooses and one that writes both read with.

Knows token ids and cells; knows nothing of text, of labels or of answers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fitune import config
from fitune.language_models.recurrent import recurrent_layers


class Reader(nn.Module):
    """Reads each row from an empty memory on, whatever stands beside it in the batch.

    Args:
        tokens: how many there are.
        unknown: the token that stands for those it does not know. In training, tokens drawn at
            random are read as this one, so that its embedding is learned though every word of the
            training rows is known (word dropout; Iyyer et al., ACL 2015, section 3.2).
        options: `word_dropout` and `dropout` are given.

    Attributes:
        width: values of a state: those of both directions.
    """

    def __init__(self, tokens: int, unknown: int, options: config.Recurrent) -> None:
        super().__init__()
        self.unknown = unknown
        self.word_dropout = options.word_dropout or 0.0
        self.directions = 2 if options.bidirectional else 1
        self.width = options.hidden * self.directions
        self.embedding = nn.Embedding(tokens, options.hidden)
        self.dropout = nn.Dropout(options.dropout or 0.0)
        self.layers = recurrent_layers(
            options.cell,
            options.hidden,
            options.layers,
            dropout=options.dropout or 0.0,
            bidirectional=options.bidirectional,
        )

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read rows that are padded on the right.

        Args:
            ids, mask: ``[rows, tokens]`` int64; each row has a token at least.

        Returns:
            The highest layer's state at each token, ``[rows, tokens, width]``, zero at padding; and
            each layer's last, ``[layers, rows, width]``.
        """
        if self.training and self.word_dropout:
            drawn = torch.rand(ids.shape, device=ids.device) < self.word_dropout
            ids = ids.masked_fill(drawn, self.unknown)
        packed = pack_padded_sequence(
            self.dropout(self.embedding(ids)),
            mask.sum(dim=1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        packed, last = self.layers(packed)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=ids.shape[1])
        if isinstance(last, tuple):  # an LSTM's second is what it does not say
            last = last[0]
        last = last.unflatten(0, (-1, self.directions)).transpose(1, 2).flatten(2)
        return states, last
