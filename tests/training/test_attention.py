"""The attention kernel: chosen for training only, and the same numbers whichever it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fitune.training.attention import SHORT_ROWS, training_attention
from training_kit import Kit


@pytest.mark.parametrize("longest", [SHORT_ROWS, SHORT_ROWS + 1])
def test_short_rows_get_plain_attention_inside_only(kit: Callable[..., Kit], longest: int) -> None:
    model = kit().model
    assert model.config._attn_implementation == "sdpa"
    with training_attention(model, longest=longest, device="cpu"):
        expected = "eager" if longest <= SHORT_ROWS else "sdpa"
        assert model.get_base_model().config._attn_implementation == expected
    assert model.get_base_model().config._attn_implementation == "sdpa"


def test_it_is_put_back_after_an_error(kit: Callable[..., Kit]) -> None:
    model = kit().model
    with pytest.raises(KeyError), training_attention(model, longest=1, device="cpu"):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"


def test_both_give_the_same_loss(kit: Callable[..., Kit]) -> None:
    made = kit(random_b=True)
    batch = made.objective.batch(range(8))
    fused = made.objective.loss_sum(made.model, batch)
    with training_attention(made.model, longest=1, device="cpu"):
        plain = made.objective.loss_sum(made.model, batch)
    torch.testing.assert_close(plain, fused, rtol=1e-5, atol=1e-5)
