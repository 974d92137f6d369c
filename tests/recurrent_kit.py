"""Recurrent layers by hand, in float64: one row, one token, one of torch's cells at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

CELL_OF = {nn.RNN: nn.RNNCell, nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}


def walk(layers: Any, layer: int, suffix: str, values: list, first: Any = None) -> list:
    """The state after each of `values`, each ``[1, inputs]``, in their order."""
    cell: Any = CELL_OF[type(layers)](values[0].shape[1], layers.hidden_size).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        kept = getattr(layers, f"{name}_l{layer}{suffix}").detach().double()
        getattr(cell, name).data.copy_(kept)
    memory, states = first, []
    for value in values:
        memory = cell(value, memory)
        states.append(memory)
    return [state[0] if isinstance(state, tuple) else state for state in states]


def read_by_hand(reader: Any, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest layer's states ``[tokens, width]``, and each layer's last ``[layers, width]``."""
    values = [reader.embedding.weight[i].detach().double()[None] for i in ids]
    last = []
    for layer in range(reader.layers.num_layers):
        forwards = walk(reader.layers, layer, "", values)
        ends, parts = [forwards[-1]], [forwards]
        if reader.layers.bidirectional:
            backwards = walk(reader.layers, layer, "_reverse", values[::-1])
            ends.append(backwards[-1])
            parts.append(backwards[::-1])
        values = [torch.cat(both, dim=1) for both in zip(*parts, strict=True)]
        last.append(torch.cat(ends, dim=1))
    return torch.cat(values), torch.cat(last)


def batch_of(rows: list[list[int]], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, ``[rows, longest]``, padded on the right."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
