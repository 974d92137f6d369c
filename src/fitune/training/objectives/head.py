"""The output head, run on the hidden states of learned tokens only.

Knows transformers' output heads; knows nothing of what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fitune.training.fake import has_values
from fitune.training.kernels.head_loss import head_loss_sum

AFTER_THE_HEAD = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "unpadded_vocab_size",
)
"""Of a config: what a family does to the logits after its head."""


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


@contextmanager
def head_as_loss(
    model: Any, positions: torch.Tensor | None, targets: torch.Tensor
) -> Iterator[None]:
    """As `head_inputs`, and what the head returns is no logits but ``[1, 1, 1]``, their summed
    cross-entropy; for models whose head is the last they do (`head_is_last`)."""
    head = model.get_output_embeddings()

    def loss(hidden: torch.Tensor) -> torch.Tensor:
        return head_loss_sum(hidden[0], head.weight, head.bias, targets).view(1, 1, 1)

    vars(head)["forward"] = loss
    try:
        with head_inputs(model, positions):
            yield
    finally:
        vars(head).pop("forward")


def head_is_last(model: Any) -> bool:
    """Whether a model's logits are what its linear output head returns.

    By its config, and, where there are values, by a forward pass over two tokens.
    """
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    if type(head) is not nn.Linear:
        return False
    if any(getattr(config, name, None) not in (None, 1, 1.0) for name in AFTER_THE_HEAD):
        return False
    if not has_values(head.weight):
        return True
    seen: list[torch.Tensor] = []
    handle = head.register_forward_hook(lambda module, given, output: seen.append(output))
    tokens = torch.ones((1, 2), dtype=torch.int64, device=head.weight.device)
    given = {"decoder_input_ids": tokens} if config.is_encoder_decoder else {}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(input_ids=tokens, use_cache=False, **given).logits
    finally:
        handle.remove()
    return len(seen) == 1 and torch.equal(seen[0].float(), logits.float())
