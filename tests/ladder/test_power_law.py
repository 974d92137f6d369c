"""Laws through points: equal to SciPy's least squares, and to the law the points are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.ladder.power_law import fit

ROWS = np.array([100.0, 200, 400, 800])
EVEN = np.ones(4)


@settings(deadline=None, max_examples=50)
@given(
    floor=st.floats(0, 0.5),
    gain=st.floats(0.01, 0.5),
    exponent=st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5]),
)
def test_a_law_is_found_again(floor: float, gain: float, exponent: float) -> None:
    errors = floor + gain * (ROWS / 800) ** -exponent
    law = fit(ROWS, errors[None], EVEN)
    assert law.at(800)[0] == pytest.approx(errors[-1], abs=1e-6)
    assert law.exponent[0] == pytest.approx(exponent, abs=1e-9)
    assert law.at(3200)[0] == pytest.approx(floor + gain * 4**-exponent, abs=1e-6)


def test_as_good_as_scipy() -> None:
    """Of the same form, with bounds, by another algorithm."""
    from scipy.optimize import least_squares

    rng = np.random.default_rng(0)
    errors = 0.1 + 0.2 * (ROWS / 800) ** -0.6 + rng.normal(0, 0.01, (20, 4))
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    law = fit(ROWS, errors, weights)
    for i, row in enumerate(errors):

        def residuals(p: np.ndarray, row: np.ndarray = row) -> np.ndarray:
            return np.sqrt(weights) * (row - p[0] - p[1] * (ROWS / 800) ** -p[2])

        found = least_squares(residuals, [0.1, 0.2, 0.5], bounds=([0, 0, 0.05], [1, 2, 2]))
        mine = residuals(np.array([law.floor[i], law.gain[i], law.exponent[i]]))
        # exponents are tried in steps of 0.0125, so a few thousandths of an error are lost
        assert (mine**2).sum() <= 2 * found.cost + 0.003**2
        floor, gain, exponent = found.x
        assert law.at(3200)[i] == pytest.approx(floor + gain * 4**-exponent, abs=0.003)


def test_terms_are_never_negative() -> None:
    rising = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.2, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])
    law = fit(ROWS, rising, EVEN)
    assert (law.floor >= 0).all() and (law.gain >= 0).all()
    assert law.at(1e9)[0] == pytest.approx(0.25), "a curve that rises is drawn flat"
    assert (law.at(1e9) >= 0).all()
