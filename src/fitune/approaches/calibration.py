"""From how likely a decoder finds each label's words to the probability of each label.

Knows log-likelihoods; knows nothing of models, prompts or rows.

A likelihood says how usual words are as much as how fitting: long names and rare words lose, and a
label that was shown last or is common in the world wins whatever is asked. `NORMALIZATIONS` mend
the first, `CALIBRATIONS` the second. All of them come to log p = scale · log-likelihood − shift, up
to a constant, with two numbers a label that are known before a question is asked: an answer depends
on nothing but its own question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp, softmax

Floats = npt.NDArray[np.float64]

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Questions that say nothing (Zhao et al. 2021, section 5)."""

NORMALIZATIONS = ("sum", "mean", "pmi")
CALIBRATIONS = ("none", "contextual", "batch")


@dataclass(frozen=True)
class Way:
    """One way of reading likelihoods, by names."""

    normalize: str
    calibrate: str

    @property
    def needs_content_free(self) -> bool:
        return self.normalize == "pmi" or self.calibrate == "contextual"

    @property
    def needs_unlabelled(self) -> bool:
        return self.calibrate == "batch"


PLAIN = Way("sum", "none")
"""Likelihoods as they are."""


@dataclass(frozen=True)
class Calibration:
    """A way with its numbers.

    Attributes:
        scale, shift: ``[labels]``.
    """

    way: Way
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def probabilities(self, likelihoods: Floats) -> Floats:
        """``[rows, labels]`` natural-log likelihoods → probabilities; minus infinity becomes 0."""
        found: Floats = softmax(likelihoods * self.scale - np.array(self.shift), axis=1)
        return found

    def to_json(self) -> dict[str, Any]:
        way = {"normalize": self.way.normalize, "calibrate": self.way.calibrate}
        return way | {"scale": list(self.scale), "shift": list(self.shift)}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Calibration:
        way = Way(saved["normalize"], saved["calibrate"])
        return cls(way, tuple(saved["scale"]), tuple(saved["shift"]))


def ways(normalize: str | None, calibrate: str | None) -> list[Way]:
    """Every way that the options leave open (None), the plainest first.

    Where both are open, pmi comes without contextual calibration: with one question without content
    they are the same (the shift of either is what that question gives, up to a constant).
    """
    calibrations = (calibrate,) if calibrate else CALIBRATIONS
    normalizations = (normalize,) if normalize else NORMALIZATIONS
    every = [Way(n, c) for c, n in product(calibrations, normalizations)]
    both = normalize is None and calibrate is None
    return [way for way in every if not (both and way == Way("pmi", "contextual"))]


def calibration(
    way: Way,
    lengths: Sequence[int],
    *,
    content_free: Floats | None = None,
    unlabelled: Floats | None = None,
) -> Calibration:
    """The numbers of one way.

    - `mean` divides by the number of tokens (Brown et al., arXiv:2005.14165, section 2.4).
    - `pmi` subtracts the log-likelihood after a prompt without a question: domain-conditional
      pointwise mutual information (Holtzman et al., arXiv:2104.08315, section 3).
    - `contextual` divides the probabilities by their mean over questions without content (Zhao et
      al., arXiv:2102.09690, section 5). There the result goes through a softmax again; here it is
      divided by its sum, which has the same largest label and flattens nothing.
    - `batch` divides them by their mean over unlabelled questions (Zhou et al., arXiv:2309.17249,
      section 3.2); of rows set aside and not of those asked together.

    Args:
        lengths: tokens of each label's words, ``[labels]``.
        content_free: log-likelihoods after each of `CONTENT_FREE`, ``[3, labels]``.
        unlabelled: after questions without known answers, ``[rows, labels]``.
    """
    count = len(lengths)
    scale = 1 / np.array(lengths, dtype=np.float64) if way.normalize == "mean" else np.ones(count)
    shift = np.zeros(count)
    if way.normalize == "pmi":
        assert content_free is not None
        shift = content_free[CONTENT_FREE.index("")]
    likelihoods = {"contextual": content_free, "batch": unlabelled}.get(way.calibrate)
    if way.calibrate != "none":
        assert likelihoods is not None
        each = log_softmax(likelihoods * scale - shift, axis=1)
        shift = shift + logsumexp(each, axis=0) - np.log(len(each))
    return Calibration(way, tuple(scale.tolist()), tuple(shift.tolist()))


def plain(labels: int) -> Calibration:
    """Likelihoods as they are."""
    return Calibration(PLAIN, (1.0,) * labels, (0.0,) * labels)
