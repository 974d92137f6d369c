"""The formulas people use for memory, each with where it is from.

Knows formulas; knows nothing of models or traces. They are here to be put beside the traced truth,
term by term, so that `--explain` can say where the two part; nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TERMS = ("weights", "gradients", "optimizer states", "activations", "logits and loss", "the rest")

STATES = {"sgd": 0, "momentum": 1, "lion": 1, "adamw": 2}
"""Values that an optimizer keeps per trained parameter."""

Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class Textbook:
    """What a formula says.

    Attributes:
        formula: as people write it.
        source: where it is from.
        terms: name, one of `TERMS`, → bytes; a term the formula does not speak of is absent.
    """

    formula: str
    source: str
    terms: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.terms.values())

    def plus(self, other: Textbook) -> Textbook:
        """Two formulas that speak of different things, such as states and activations."""
        names = [name for name in TERMS if name in self.terms or name in other.terms]
        return Textbook(
            formula=f"{self.formula} + {other.formula}",
            source=f"{self.source}; {other.source}",
            terms={name: self.terms.get(name, 0) + other.terms.get(name, 0) for name in names},
        )


def inference(parameters: int, bytes_per_weight: float) -> Textbook:
    """Weights and a fifth more for everything else: 13B in 16 bit → 31.2 GB."""
    weights = int(parameters * bytes_per_weight)
    return Textbook(
        formula="parameters × bytes × 1.2",
        source="EleutherAI, Transformer Math 101 (2023), inference",
        terms={"weights": weights, "the rest": weights // 5},
    )


def training_states(
    parameters: int, bytes_per_value: int, states: int, *, trained: int | None = None
) -> Textbook:
    """Weights, gradients and optimizer states, all in one dtype.

    Of 13B parameters in 16 bit, gradients and Adam's states are 13 × 3 × 2 = 78 GB.

    Args:
        states: values that the optimizer keeps per trained parameter: see `STATES`.
        trained: how many parameters train; None: all.
    """
    learned = parameters if trained is None else trained
    return Textbook(
        formula=f"parameters × bytes + trained × bytes × (1 + {states})",
        source="SGD keeps no state, momentum one value per parameter (Polyak, 1964), "
        "Adam two (Kingma and Ba, arXiv:1412.6980, algorithm 1)",
        terms={
            "weights": parameters * bytes_per_value,
            "gradients": learned * bytes_per_value,
            "optimizer states": learned * bytes_per_value * states,
        },
    )


def mixed_precision_adam(parameters: int) -> Textbook:
    """16 bytes per parameter: 1.5B → 24 GB, 7.5B → 120 GB.

    Weights and gradients in 16 bit; Adam's two values and a master copy of the weights in fp32.
    """
    return Textbook(
        formula="16 × parameters",
        source="Rajbhandari et al., ZeRO, arXiv:1910.02054, section 3.1",
        terms={
            "weights": 2 * parameters,
            "gradients": 2 * parameters,
            "optimizer states": 12 * parameters,
        },
    )


def four_times(total_bytes: int) -> Textbook:
    """Training with Adam as `accelerate estimate-memory` has it: four times the weights."""
    return Textbook(
        formula="4 × weights",
        source="accelerate estimate-memory",
        terms={
            "weights": total_bytes,
            "gradients": total_bytes,
            "optimizer states": 2 * total_bytes,
        },
    )


def layer_activation_bytes(
    *, seq: int, batch: int, hidden: int, heads: int, recompute: Recompute = "none"
) -> int:
    """Bytes that one GPT layer keeps for its backward pass, in 16 bit, with dropout.

    ``s·b·h·(34 + 5·a·s/h)``; without attention scores (recomputed, or never kept by fused
    attention) ``34·s·b·h``; with the whole layer recomputed, its input alone, ``2·s·b·h``.
    Source: Korthikanti et al., arXiv:2205.05198, equation 1 and table 2, one device.
    """
    values = seq * batch * hidden
    if recompute == "full":
        return 2 * values
    scores = 5 * heads * seq * seq * batch
    return 34 * values + (scores if recompute == "none" else 0)


def activations(
    *,
    layers: int,
    seq: int,
    batch: int,
    hidden: int,
    heads: int,
    vocabulary: int,
    recompute: Recompute = "none",
) -> Textbook:
    """What all layers and the output keep for the backward pass, in 16 bit.

    The output keeps the inputs of its norm and of its matrix, 2·s·b·h each, and fp32 logits,
    4·s·b·v. Source: Korthikanti et al., arXiv:2205.05198, sections 4.1 and 4.3.
    """
    layer = layer_activation_bytes(
        seq=seq, batch=batch, hidden=hidden, heads=heads, recompute=recompute
    )
    per_layer = {"none": "(34 + 5·a·s/h)", "selective": "34", "full": "2"}[recompute]
    return Textbook(
        formula=f"L·s·b·h·{per_layer} + 4·s·b·(h + v)",
        source="Korthikanti et al., arXiv:2205.05198, sections 4 and 5",
        terms={
            "activations": layers * layer + 4 * seq * batch * hidden,
            "logits and loss": 4 * seq * batch * vocabulary,
        },
    )
