"""What the sinks of this room have in common.

Knows records; knows no library.
"""

from __future__ import annotations

import importlib.util
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fitune.errors import MissingExtraError
from fitune.runs import read_json, write_json
from fitune.training.callbacks import Callback, Record, Start

if TYPE_CHECKING:
    from fitune.training.loop import Trained

STATE = "track.json"
"""In the rung's folder: what a sink must know when training goes on."""

PROJECT = "fitune"
"""What runs are gathered under where the library's own environment variable says nothing."""


class Sink(Callback):
    """Numbers of records, handed to a library.

    A record that comes a second time after a kill is handed on once, unless the sink can take back
    the first (`takes_back`).

    Attributes:
        packages: that must be there, by import name.
        extra: of fitune, that brings them.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    takes_back: ClassVar[bool] = False

    @classmethod
    def require(cls) -> None:
        """
        Raises:
            MissingExtraError: a package is not installed.
        """
        for package in cls.packages:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, extra=cls.extra, purpose=f"track: {cls.__name__}")

    def open(self, start: Start) -> None:
        """Make ready, or go on with what an earlier process began."""
        raise NotImplementedError

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand on the numbers of one record, by names such as ``train/loss``."""
        raise NotImplementedError

    def close(self, *, finished: bool) -> None:
        """See to it that everything has arrived."""
        raise NotImplementedError

    def on_start(self, start: Start) -> None:
        self._known = {} if self.takes_back else handed_out(start)
        self.open(start)

    def on_step(self, record: Record) -> None:
        self._hand_on(record)

    def on_evaluate(self, record: Record) -> None:
        self._hand_on(record)

    def on_end(self, trained: Trained | None) -> None:
        if hasattr(self, "_known"):  # else it never started
            self.close(finished=trained is not None)

    def _hand_on(self, record: Record) -> None:
        kind, step = record["kind"], record["step"]
        if step > self._known.get(kind, -1):
            self.write(step, numbers(record))


def numbers(record: Record) -> dict[str, float]:
    """``{"train/loss": 1.2, …}``: what is a number in a record, but for the step."""
    kind = record["kind"]
    return {
        f"{kind}/{name}": float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and math.isfinite(value) and name != "step"
    }


def identity(folder: Path) -> str:
    """Eight letters that name this training in places where others are, the same when it goes on.

    Not the folder's name: other tasks write into other folders of the same name.
    """
    state = _state(folder)
    if "id" not in state:
        state["id"] = uuid.uuid4().hex[:8]
        write_json(folder / STATE, state)
    return str(state["id"])


def handed_out(start: Start) -> dict[str, int]:
    """Kind of record → the last step whose record any process before this one handed out.

    Kept in a file, too: a process that was killed before it came as far as the one before it leaves
    a shorter metrics.jsonl.
    """
    state = _state(start.folder)
    before = state.get("recorded", {})
    kinds = {*before, *start.recorded}
    last = {kind: max(before.get(kind, -1), start.recorded.get(kind, -1)) for kind in kinds}
    write_json(start.folder / STATE, {**state, "recorded": last})
    return last


def _state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    return dict(read_json(path)) if path.is_file() else {}


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that say something, as plain values."""
    return {name: value for name, value in options.items() if value is not None}
