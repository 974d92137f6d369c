"""Keeps other libraries' progress bars and advice off the user's terminal.

Knows how transformers, datasets and bitsandbytes speak; what is worth saying, fitune says itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging as python_logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars, advice and warnings inside the block, then restore them."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def import_bitsandbytes() -> Any:
    """bitsandbytes; None where it is not installed.

    Where the processor multiplies bf16 and the package `kernels` is installed, too, importing
    bitsandbytes fetches a compiled kernel from the network, and says so on the terminal where it
    fails. Nothing may be fetched unasked, so `kernels` is out of its sight meanwhile; it then takes
    its own kernel. To be called before whatever else imports it, as PEFT does.

    It also asks torch to compile four functions, which loads torch's compiler: a third of all the
    time that imports take. They are for devices other than CPUs and NVIDIA's, whose kernels are of
    another make, so that they stay as they are written.
    """
    if "bitsandbytes" in sys.modules or importlib.util.find_spec("bitsandbytes") is None:
        return sys.modules.get("bitsandbytes")
    import torch

    voice = python_logging.getLogger("bitsandbytes")
    level, kernels = voice.level, sys.modules.get("kernels", ...)
    voice.setLevel(python_logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # how Python spells "not there"
    try:
        with warnings.catch_warnings(), mock.patch.object(torch, "compile", _as_written):
            warnings.simplefilter("ignore")
            return importlib.import_module("bitsandbytes")
    finally:
        voice.setLevel(level)
        if kernels is ...:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels


def _as_written(function: Any = None, **_: Any) -> Any:
    """`torch.compile` that compiles nothing."""
    return _as_written if function is None else function
