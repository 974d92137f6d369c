"""What an estimate is asked about: how a model is trained, or how it answers.

Knows names and numbers; knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fitune import config

Attention = Literal["auto", "eager", "sdpa"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Training:
    """One way of training.

    Attributes:
        options: as in a task file: method, rank, optimizer, dtype (not `auto`), checkpointing, …
        batch: rows of one micro-batch; with objective dpo, pairs.
        seq: tokens of each row, or of each answer of a pair, padding included.
        micro_batches: of one optimizer step; their gradients add up.
        packed: whether rows are laid end to end, where the model can read them so.
        segments: how many rows each `seq` tokens hold then.
        shared_prefix: tokens, of those of each row, that all packed rows begin with and that stand
            before them once.
        padded: where rows are not packed: whether some row is shorter than the others. Models then
            build an attention mask that they otherwise do without.
        answer_tokens: learned tokens of each row, for models that write; None: all but the first.
        labels: for models that classify.
        attention: the kernel; ``"auto"`` is what training chooses.
        device: whose kernels are assumed.
    """

    options: config.Finetuned
    batch: int
    seq: int
    micro_batches: int = 1
    packed: bool = True
    segments: int = 1
    shared_prefix: int = 0
    padded: bool = False
    answer_tokens: int | None = None
    labels: int = 2
    attention: Attention = "auto"
    device: Device = "cpu"

    @property
    def sequences(self) -> int:
        """Of each row: a pair of answers is two."""
        return 2 if self.options.objective == "dpo" else 1


@dataclass(frozen=True)
class Inference:
    """One way of answering.

    Attributes:
        requests: answered side by side.
        context: tokens of each, prompt and answer together; of a model with an encoder and a
            decoder, those of the answer.
        prompt: tokens of the longest prompt, all read in one pass; None: all of `context` but the
            last (the most that reading can take), or, before an encoder, as many as `context`.
        padded: whether some prompt is shorter than the others. Models then build an attention mask
            that they otherwise do without.
        dtype: of the weights and of what is computed: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        kv_dtype: of cached keys and values: None for `dtype`, or ``"int8"`` or ``"int4"``.
        attention: the kernel; ``"auto"`` is the model's own choice.
        device: whose kernels are assumed.
    """

    requests: int
    context: int
    prompt: int | None = None
    padded: bool = False
    dtype: str = "bf16"
    kv_dtype: str | None = None
    attention: Attention = "auto"
    device: Device = "cpu"
