"""Errors that fall with the number of rows: error = a + b · n^(−c), with a, b, c ≥ 0.

Knows numbers; knows nothing of rows, metrics or files. The form is that of Cortes et al. (NIPS
1993, section 2) and Hestness et al. (arXiv:1712.00409, section 3): a is what no number of rows
takes away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXPONENTS = np.linspace(0.05, 2.0, 157)
"""Tried one after the other, in steps of 0.0125: for a given c the law is linear, and four points
do not tell c more finely. Beyond 2 the curve is flat after the first point."""


@dataclass(frozen=True)
class PowerLaw:
    """One law for each of R curves; every field is float64 [R].

    Attributes:
        floor: a.
        gain: b at the largest number of rows: what the law has above its floor there.
        exponent: c.
        rows: the largest number of rows of the fit, one for all.
    """

    floor: Floats
    gain: Floats
    exponent: Floats
    rows: int

    def at(self, rows: float) -> Floats:
        """The error at so many rows, float64 [R]."""
        return self.floor + self.gain * (rows / self.rows) ** -self.exponent


def fit(rows: Floats, errors: Floats, weights: Floats) -> PowerLaw:
    """Least squares with a, b ≥ 0, for many curves at once.

    Args:
        rows: float64 [P], ascending.
        errors: float64 [R, P].
        weights: float64 [P], of the squared residuals.

    Returns:
        the best law for each curve.
    """
    best = np.full(len(errors), np.inf)
    floor, gain, exponent = (np.zeros(len(errors)) for _ in range(3))
    for c in EXPONENTS:
        shape = (rows / rows[-1]) ** -c
        for a, b in _candidates(shape, errors, weights):
            residuals = errors - a[:, None] - b[:, None] * shape
            loss = (weights * residuals**2).sum(axis=1)
            better = (loss < best - 1e-15) & (a >= 0) & (b >= 0)
            best[better], floor[better] = loss[better], a[better]
            gain[better], exponent[better] = b[better], c
    return PowerLaw(floor, gain, exponent, int(rows[-1]))


def _candidates(shape: Floats, errors: Floats, weights: Floats) -> list[tuple[Floats, Floats]]:
    """The solution with both terms, and those on the border, where one of them is 0: the best that
    has no negative term is among them."""
    total = weights.sum()
    mean_shape = (weights * shape).sum() / total
    mean_error = (errors * weights).sum(axis=1) / total
    centred = shape - mean_shape
    slope = (errors * weights) @ centred / (weights * centred**2).sum()
    alone = (errors * weights) @ shape / (weights * shape**2).sum()
    nothing = np.zeros(len(errors))
    return [(mean_error - slope * mean_shape, slope), (nothing, alone), (mean_error, nothing)]
