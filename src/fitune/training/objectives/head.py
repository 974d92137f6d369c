"""The output head, run on the hidden states of learned tokens only.

Knows transformers' output heads; knows nothing of what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def head_inputs(model: Any, positions: torch.Tensor | None) -> Iterator[None]:
    """Inside the block, the output head sees ``[1, positions, hidden]`` of all hidden states.

    A hook on the head instead of a call of the trunk: whatever a family does after its head
    (scaling, soft capping) still happens, and no family needs to be known here.
    """

    def select(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0]
        return (hidden.flatten(0, 1).index_select(0, positions)[None],)  # type: ignore[arg-type]

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
