"""fitune: fit, then tune. Do I need to fine-tune, will it fit, how well, was it worth it?

The public functions are one per verb of the command line. They load on first use, so that
`import fitune` stays fast.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fitune.errors import (
    ConfigError,
    DataError,
    FituneError,
    Interrupted,
    MissingExtraError,
    ModelError,
    ResourceError,
    RunError,
    TrainingError,
)

if TYPE_CHECKING:
    from fitune.api import check, doctor, estimate, evaluate, ladder, lm, load, plan, profile, tune
    from fitune.config import Task
    from fitune.training.callbacks import Callback

__version__ = "0.1.0"

_LAZY = {
    "Callback": "fitune.training.callbacks",
    "Task": "fitune.config",
    "check": "fitune.api",
    "doctor": "fitune.api",
    "estimate": "fitune.api",
    "evaluate": "fitune.api",
    "ladder": "fitune.api",
    "lm": "fitune.api",
    "load": "fitune.api",
    "plan": "fitune.api",
    "profile": "fitune.api",
    "tune": "fitune.api",
}

__all__ = [
    "Callback",
    "ConfigError",
    "DataError",
    "FituneError",
    "Interrupted",
    "MissingExtraError",
    "ModelError",
    "ResourceError",
    "RunError",
    "Task",
    "TrainingError",
    "check",
    "doctor",
    "estimate",
    "evaluate",
    "ladder",
    "lm",
    "load",
    "plan",
    "profile",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fitune' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package. `ladder` is a verb and a room: as an attribute it is the verb, whatever was
    imported before; ``from fitune.ladder.rung import Rung`` finds the room."""

    @property
    def ladder(self) -> Any:
        return __getattr__("ladder")

    @ladder.setter
    def ladder(self, room: ModuleType) -> None:
        """Called by Python when it has imported the room."""


sys.modules[__name__].__class__ = _Package
