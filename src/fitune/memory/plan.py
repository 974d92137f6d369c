"""How many tokens fit into one forward and backward pass.

Knows an architecture's sizes and a budget in bytes; knows nothing of data or of running machines.
"""

from __future__ import annotations

from fitune.models.architecture import Architecture

WORKING_SET_TOKENS = 4096
"""More tokens at once bring a CPU no speed once its matrix units are full, only memory."""

ACTIVATION_SHARE = 0.5
"""Of the free memory: what activations may take. The rest is for what this rule does not count."""


def activation_bytes_per_token(architecture: Architecture) -> int:
    """Bytes kept for the backward pass, per token: an upper estimate.

    34 bytes per hidden value and layer in 16 bit without checkpointing (Korthikanti et al.,
    arXiv:2205.05198, equation 1, without its attention-score term, which fused attention does not
    keep), doubled for fp32, and four fp32 copies of a token's logits.
    """
    layers = 68 * architecture.hidden * architecture.layers
    logits = 16 * architecture.vocabulary if architecture.kind == "decoder" else 0
    return layers + logits


def micro_batch_tokens(architecture: Architecture, *, longest: int, memory_bytes: int) -> int:
    """The most tokens, padding included, for one micro-batch.

    Never less than the longest row, which cannot be cut.

    Args:
        longest: tokens of the longest row.
        memory_bytes: free memory after the model, its gradients and optimizer are placed.
    """
    state = 16 * architecture.parameters  # fp32 weights, gradients and two AdamW values
    room = max(0, memory_bytes - state) * ACTIVATION_SHARE
    fitting = int(room // activation_bytes_per_token(architecture))
    return max(longest, min(WORKING_SET_TOKENS, fitting))
