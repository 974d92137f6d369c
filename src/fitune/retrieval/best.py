"""The k highest of many scores.

Knows numbers; knows nothing of where they come from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.int64]


def best(scores: Floats, k: int) -> Numbers:
    """Where the `k` highest of `scores` ``[n]`` stand, highest first; equal ones in order.

    The order of equals matters: a plain partial sort would pick among them by chance, and answers
    would change with the number of passages beside them. Linear in n, but for sorting k.
    """
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > least)
        equal = np.flatnonzero(scores == least)[: k - len(above)]
        found = np.concatenate([above, equal])
    else:
        found = np.arange(len(scores))
    # lexsort's last key comes first; places settle what scores do not.
    return found[np.lexsort((found, -scores[found]))]
