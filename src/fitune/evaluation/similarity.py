"""How near in meaning an answer is to its reference, by vectors of an encoder.

Knows texts and vectors; knows nothing of models: it is given the function that embeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fitune.evaluation.metric import Floats, Metric, Texts, mean_over_rows

Embed = Callable[[Texts], npt.NDArray[Any]]
"""Texts → vectors, float ``[texts, dimension]``."""


def embedding_similarity(embed: Embed, name: str = "embedding_similarity") -> Metric:
    """The mean cosine between the vectors of answer and reference, −1 to 1; the idea of
    sentence-level similarity by siamese encoders (Reimers and Gurevych 2019, section 3).

    Similarities are kept by their pair of texts: intervals and tests ask for the same ones again,
    and embedding is what takes the time.
    """
    known: dict[tuple[str, str], float] = {}

    def per_row(predictions: Texts, references: Texts) -> Floats:
        pairs = list(zip(predictions, references, strict=True))
        new = list(dict.fromkeys(pair for pair in pairs if pair not in known))
        if new:
            texts = list(dict.fromkeys(text for pair in new for text in pair))
            vector = dict(zip(texts, _directions(embed(texts)), strict=True))
            known.update((pair, float(vector[pair[0]] @ vector[pair[1]])) for pair in new)
        return np.array([known[pair] for pair in pairs], dtype=np.float64)

    return mean_over_rows(
        name,
        ("generate",),
        per_row,
        "The mean cosine between the vectors of answer and reference under an encoder: near in "
        "meaning counts, in other words too.",
    )


def _directions(vectors: npt.NDArray[Any]) -> Floats:
    """Scaled to length one in float64; a vector of zeros stays one, alike to nothing."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
