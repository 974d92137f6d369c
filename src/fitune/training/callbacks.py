"""What is told of a training while it runs: five events.

Knows events and who listens; knows nothing of what they do with it. A sink is a callback that a
task file names (`training.sinks`). `metrics.jsonl` is written first (`training.track`), so that a
callback never knows more than the run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitune.errors import ConfigError, FituneError, Interrupted, TrainingError

if TYPE_CHECKING:
    from fitune.training.loop import Trained

Record = Mapping[str, Any]
"""A line of metrics.jsonl: ``kind`` is ``"train"`` (``step``, ``epoch``, ``loss``,
``learning_rate``, ``grad_norm``, ``tokens``, ``seconds``) or ``"validation"`` (``step``, ``epoch``,
``loss``, ``score``); None where there is no finite number."""


@dataclass(frozen=True)
class Start:
    """Where a training begins, or goes on.

    Attributes:
        folder: of this rung, in the run folder; a callback may write there.
        options: of the approach, every one with its value.
        step: optimizer steps done before.
        steps: of the whole training, unless it stops early.
        resumed: whether it goes on from a checkpoint.
        recorded: kind of record → the last step whose record was handed out before. After a kill,
            steps since the last checkpoint are done again, and their records come a second time.
    """

    folder: Path
    options: Mapping[str, Any]
    step: int
    steps: int
    resumed: bool
    recorded: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Run folder and rung, ``"pydocs-3/lora"``."""
        parts = self.folder.absolute().parts
        return "/".join(part for part in parts[-3:] if part != "rungs")


class Callback:
    """The five events of a training; each does nothing unless overridden.

    They are called in the process and between the steps of the training: what takes long here
    makes it take longer.
    """

    def on_start(self, start: Start) -> None:
        """Before the first step, also of a training that goes on."""

    def on_step(self, record: Record) -> None:
        """After an optimizer step."""

    def on_evaluate(self, record: Record) -> None:
        """After the validation rows were asked."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """After the state of `step` was written to `folder`, which the next checkpoint replaces."""

    def on_end(self, trained: Trained | None) -> None:
        """Training ended; `trained` is None where it was stopped or failed, and may go on later."""


EVENTS = ("on_start", "on_step", "on_evaluate", "on_checkpoint", "on_end")


class Callbacks(Callback):
    """Several callbacks as one; left at the end of the `with` block, they know that it ended.

    Args:
        callbacks: the user's own, which training does not go on without.
        sinks: left out with one notice once they fail.
        notice: takes one sentence the user should read.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback] = (),
        sinks: Sequence[Callback] = (),
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.callbacks = callbacks
        self.sinks = list(sinks)
        self.notice = notice
        self._ended = False

    def __enter__(self) -> Callbacks:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._ended:
            with suppress(FituneError):  # what ended the training matters more
                self.on_end(None)

    def on_start(self, start: Start) -> None:
        self._tell("on_start", start)

    def on_step(self, record: Record) -> None:
        self._tell("on_step", record)

    def on_evaluate(self, record: Record) -> None:
        self._tell("on_evaluate", record)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        self._tell("on_checkpoint", step, folder)

    def on_end(self, trained: Trained | None) -> None:
        self._ended = True
        self._tell("on_end", trained)

    def _tell(self, event: str, *facts: Any) -> None:
        for sink in tuple(self.sinks):
            try:
                getattr(sink, event)(*facts)
            except Exception as error:  # a network, a disk, a library of others: any of theirs
                self.sinks.remove(sink)
                self.notice(
                    f"{type(sink).__name__} failed in {event} ({_in_words(error)}) and is told no "
                    "more of this training; metrics.jsonl goes on."
                )
        for callback in self.callbacks:
            try:
                getattr(callback, event)(*facts)
            except (FituneError, Interrupted):
                raise
            except Exception as error:
                raise TrainingError(
                    f"callback '{type(callback).__name__}' failed in {event} ({_in_words(error)})",
                    fix="mend it, or leave it out, and go on from the last checkpoint",
                ) from error


def check_callbacks(callbacks: Sequence[Any]) -> tuple[Callback, ...]:
    """Refuse now what could not be told of an event later.

    Raises:
        ConfigError: one of them lacks an event.
    """
    for callback in callbacks:
        lacking = [event for event in EVENTS if not callable(getattr(callback, event, None))]
        if isinstance(callback, type) or lacking:
            what = "is a class" if isinstance(callback, type) else f"has no {', '.join(lacking)}"
            raise ConfigError(
                f"callback {callback!r:.60} {what}",
                fix="give an object of a class derived from fitune.Callback",
            )
    return tuple(callbacks)


def _in_words(error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
