"""TensorBoard: event files in the rung's folder.

`tensorboard --logdir runs` shows every run. What a killed process wrote after its last checkpoint
is purged by its successor (TensorBoard hides it), so that each record counts once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from fitune.training.callbacks import Start
from fitune.training.sinks.sink import Sink, flat


class TensorBoard(Sink):
    packages: ClassVar[tuple[str, ...]] = ("tensorboard",)
    extra: ClassVar[str] = "track"
    takes_back: ClassVar[bool] = True

    def open(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = start.folder / "tensorboard"
        purge = start.step + 1 if start.resumed else 0
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)
        if not start.resumed:
            text = json.dumps(flat(start.options), indent=2)
            self._writer.add_text("options", "".join(f"    {line}\n" for line in text.split("\n")))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, finished: bool) -> None:
        self._writer.close()
