"""Trackio: its local database, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names another place.

`trackio show` shows it; TRACKIO_DIR says where it is. A training that goes on keeps its run.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from fitune.training.callbacks import Start
from fitune.training.sinks.sink import PROJECT, Sink, flat, identity


class Trackio(Sink):
    packages: ClassVar[tuple[str, ...]] = ("trackio",)
    extra: ClassVar[str] = "trackio"

    def open(self, start: Start) -> None:
        import trackio

        with _unprinted():
            self._trackio: Any = trackio
            trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                # It knows runs by their names alone.
                name=f"{start.name} {identity(start.folder)}",
                resume="allow",
                config=flat(start.options),
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._trackio.log(dict(numbers), step=step)

    def close(self, *, finished: bool) -> None:
        with _unprinted():
            self._trackio.finish()


def _unprinted() -> contextlib.redirect_stdout[io.StringIO]:
    """It greets on stdout, where `--json` has its result."""
    return contextlib.redirect_stdout(io.StringIO())
