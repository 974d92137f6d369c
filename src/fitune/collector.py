"""Python's collector of cycles, and where it is in the way.

Knows Python alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside the block nothing is looked for that only cycles keep alive.

    For short stretches that make much and leave little: importing large libraries takes a fifth
    less time, and a trace on fake tensors a tenth. What is in a cycle then lives until the block's
    end and not until some moment that depends on all that the process did before.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
