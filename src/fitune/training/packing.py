"""Whether a model can read rows laid end to end, and how it is made to.

Knows transformers' models by what they say of themselves, and asks them; knows nothing of what is
trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fitune.config import Finetuned
from fitune.data.batches import Batch
from fitune.training.fake import has_values
from fitune.training.kernels.layout import Layout
from fitune.training.kernels.packed_attention import NAME, packed_attention, packed_layout

TRIED = (5, 3)
"""Tokens of the rows that a model is tried with."""

COMMON = 2
"""Tokens that they begin with."""


@contextmanager
def rows_apart(model: Any, batch: Batch) -> Iterator[None]:
    """Inside the block, which has to hold the backward pass, too, rows that are laid end to end
    read only themselves. Nothing changes where the rows of `batch` are padded."""
    if not batch.packed:
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    config = getattr(model, "trunk", model).config
    before = config._attn_implementation
    # Not the model's method, which walks through all modules: a tenth of a short step.
    config._attn_implementation = NAME
    try:
        with packed_layout(Layout(batch.packed, batch.input_ids.device, shared=batch.shared)):
            yield
    finally:
        config._attn_implementation = before


def choose_layout(model: Any, options: Finetuned, device: str = "cpu") -> tuple[bool, bool]:
    """Whether rows are laid end to end, and whether what they begin with stands before them once:
    what `options` ask for, where the model can."""
    packed = options.packing and can_pack(model, device)
    return packed, packed and wants_sharing(options) and can_share(model)


def can_pack(model: Any, device: str = "cpu") -> bool:
    """Whether rows laid end to end give what each row gives alone.

    Decided by what the model says of itself, and then by trying it with two short rows, unless its
    tensors have no values. Not yet on CUDA, whose kernel for packed rows is another.

    Args:
        device: whose kernels are used.
    """
    trunk = getattr(model, "trunk", model)
    return device == "cpu" and _may_pack(trunk) and _passes(trunk, shared=0)


def can_share(model: Any) -> bool:
    """Whether what rows begin with may stand before all of them once, in a model that can read rows
    laid end to end: no token is changed by one that comes later.

    Decided as `can_pack`.
    """
    trunk = getattr(model, "trunk", model)
    return _passes(trunk, shared=COMMON)


def wants_sharing(options: Finetuned) -> bool:
    """Whether what rows begin with is to stand before all of them once: not where chance makes each
    row's tokens, and those it begins with, its own."""
    chance = options.dropout or options.lora_dropout or options.neftune
    return options.packing and options.shared_prefix and not chance


def _may_pack(trunk: Any) -> bool:
    if getattr(trunk, "peft_type", None) is not None:
        if trunk.active_peft_config.is_prompt_learning:  # virtual tokens stand before each row
            return False
        trunk = trunk.get_base_model()
    config = trunk.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ()
    positions = [m for n, m in trunk.named_modules() if n.endswith("position_embeddings")]
    return (
        getattr(trunk, "_supports_attention_backend", False)
        and not config.is_encoder_decoder
        and set(kinds) <= {"full_attention", "sliding_attention"}
        and getattr(config, "attn_logit_softcapping", None) is None
        and not getattr(config, "alibi", False)
        and config.model_type != "gpt_oss"  # attention sinks
        # Positions that are counted from the padding token's number on.
        and all(getattr(m, "padding_idx", None) is None for m in positions)
    )


def _passes(trunk: Any, *, shared: int) -> bool:
    """Whether two short rows, the first `shared` tokens of which stand before both once, give what
    each gives alone; not tried where tensors have no values."""
    parameter = next(trunk.parameters())
    if not has_values(parameter):
        return True
    device = parameter.device
    random = torch.Generator().manual_seed(0)
    vocabulary = int(trunk.config.get_text_config().vocab_size)
    rows = [torch.randint(vocabulary // 2, vocabulary, (1, n), generator=random) for n in TRIED]
    rows[1][:, :COMMON] = rows[0][:, :COMMON]
    ids = torch.cat([rows[0][:, :shared], *(row[:, shared:] for row in rows)], dim=1).to(device)
    batch = Batch(
        ids,
        torch.ones_like(ids),
        torch.empty(0, dtype=torch.int64),
        None,
        sum(TRIED),
        (0, 1),
        packed=tuple(n - shared for n in TRIED),
        shared=shared,
    )
    training = trunk.training
    trunk.eval()
    try:
        with torch.no_grad():
            each = [_output(trunk(input_ids=row.to(device))) for row in rows]
            alone = torch.cat([each[0][:, :shared], *(row[:, shared:] for row in each)], dim=1)
            with rows_apart(trunk, batch):
                together = _output(trunk(input_ids=ids, position_ids=batch.position_ids))
    except (TypeError, ValueError):  # an argument it does not take, or another kind of attention
        return False
    finally:
        trunk.train(training)
    if together.shape != alone.shape:
        return False
    error = (together.float() - alone.float()).norm() / alone.float().norm().clamp(min=1e-12)
    return bool(error < (1e-3 if alone.dtype == torch.float32 and _exact(trunk) else 5e-2))


def _output(output: Any) -> torch.Tensor:
    return output.logits if "logits" in output else output.last_hidden_state


def _exact(trunk: nn.Module) -> bool:
    """Whether all of it is computed in fp32: no layer in 16 or 4 bit."""
    return all(p.dtype == torch.float32 for p in trunk.parameters())
