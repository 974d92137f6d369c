"""Hyper-parameters for those the user did not give, from the model's size and the data's.

Knows sizes only. Every rule stands here, with where it comes from, and every value chosen is
written into the run folder.
"""

from __future__ import annotations

import math

from fitune.config import Finetuned
from fitune.models.architecture import Architecture
from fitune.models.pooling import Pooling
from fitune.training.precision import FROZEN_BASE

TRAINED_LENGTH = 1024
"""Tokens per row for decoders: instruction data rarely has more, and memory grows with it."""

PREFERENCE_RATE = 0.1
"""Of the rate for learning answers: a preference moves a model that answers well already, and DPO
leaves it soon at more (5e-7 for 7B in full, where answers are learned at 2e-5; Tunstall et al.,
arXiv:2310.16944, section 4)."""

RATES = {"ia3": 3e-3, "prompt-tuning": 1e-2, "prefix-tuning": 3e-3}
"""Of methods that train a few thousand values: ia3's is its authors' (Liu et al., arXiv:2205.05638,
section 3.5), those of virtual tokens are guesses between its and PEFT's examples, 1e-2 to 3e-2."""

VIRTUAL = frozenset({"prompt-tuning", "prefix-tuning"})
"""Methods that put tokens before each row."""

LION_RATE = 0.2
"""Of AdamW's rate: Chen et al., arXiv:2302.06675, section 5, find a third to a tenth to suit."""

DPO_BETA = 0.1
"""Rafailov et al., arXiv:2305.18290, appendix B."""


def resolve(
    options: Finetuned,
    architecture: Architecture,
    *,
    rows: int,
    dtype: str,
    seed: int,
    pooling: Pooling | None,
) -> Finetuned:
    """`options` with every None replaced, except those that do not apply to the method.

    Args:
        rows: training rows.
        dtype: what `auto` means on this machine.
        seed: the task's.
        pooling: how the encoder was trained to pool, None for other models.
    """
    decoder = architecture.kind == "decoder"
    method = options.method or default_method(architecture.kind)
    slower = LION_RATE if options.optimizer == "lion" else 1.0
    rate = options.learning_rate or slower * learning_rate(architecture, method)
    prefers = options.objective == "dpo"
    if prefers and not options.learning_rate:
        rate *= PREFERENCE_RATE
    return options.model_copy(
        update={
            "method": method,
            "learning_rate": rate,
            "head_learning_rate": options.head_learning_rate or max(rate * 10, slower * 2e-3),
            "epochs": options.epochs or epochs(rows, decoder=decoder),
            "batch_size": options.batch_size or batch_size(rows, decoder=decoder),
            "label_smoothing": options.label_smoothing
            if options.label_smoothing is not None
            else (0.0 if decoder or options.objective == "masked" else 0.1),
            "dpo_beta": options.dpo_beta or (DPO_BETA if prefers else None),
            "dtype": dtype if options.dtype == "auto" else options.dtype,
            "max_length": options.max_length
            or min(max_length(architecture, pooling), room_for_rows(options, architecture)),
            "seed": seed if options.seed is None else options.seed,
        }
    )


def room_for_rows(options: Finetuned, architecture: Architecture) -> int:
    """The most tokens of a row: the model's context, less what stands before each row."""
    before = options.virtual_tokens if options.method in VIRTUAL else 0
    return architecture.max_length - before


def default_method(kind: str) -> str:
    """Of an `encoder` or a `decoder`: a decoder's weights and their optimizer states are many."""
    return "lora" if kind == "decoder" else "full"


def learning_rate(architecture: Architecture, method: str) -> float:
    """Larger models take smaller steps; adapters, which start at zero, take larger ones.

    Anchors: 2e-4 for a 22M encoder (4e-4 was no better on held-out rows of banking77), 5e-5 for
    BERT-base (Devlin et al., arXiv:1810.04805, appendix A.3), 2e-4 for LoRA on 7B decoders
    (Dettmers et al., arXiv:2305.14314, table 9). Biases take as much as adapters: for BERT-base
    that is inside the grid of BitFit's authors, 1e-4 to 1e-3.
    """
    size = architecture.parameters
    if method in RATES:
        return RATES[method]
    if method in FROZEN_BASE or method == "bitfit":
        return min(1e-3, 2e-4 * (7e9 / size) ** 0.3)
    if architecture.kind == "decoder":
        return min(1e-4, 2e-5 * (7e9 / size) ** 0.3)
    return min(3e-4, 2e-4 * (22.7e6 / size) ** 0.8)


def epochs(rows: int, *, decoder: bool) -> float:
    """Small data is seen more often; a decoder knows language already and overfits sooner.

    For encoders 600 / sqrt(rows), between a constant number of epochs and a constant number of
    steps: six at 10,000 rows, after which held-out training rows of banking77 scored no better than
    after five. The rule is a guess at other sizes.
    """
    if decoder:
        return 3.0 if rows < 5_000 else 2.0 if rows < 50_000 else 1.0
    return float(min(20, max(2, round(600 / math.sqrt(max(1, rows))))))


def batch_size(rows: int, *, decoder: bool) -> int:
    """Small data needs small batches to get enough steps."""
    if decoder:
        return 8 if rows < 2_000 else 16
    return 16 if rows < 2_000 else 32 if rows < 20_000 else 64


def max_length(architecture: Architecture, pooling: Pooling | None) -> int:
    """Tokens per row: what an encoder was trained with, else the context, capped for decoders."""
    if pooling is not None and pooling.max_length:
        return min(pooling.max_length, architecture.max_length)
    if architecture.kind == "decoder":
        return min(TRAINED_LENGTH, architecture.max_length)
    return min(512, architecture.max_length)
