"""Weights & Biases: offline files in the rung's folder, unless the environment asks otherwise.

`wandb sync RUN/rungs/*/wandb/offline-*` uploads them. A training that goes on keeps its run id; its
records count by their own number `step`, not by W&B's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from fitune.training.callbacks import Start
from fitune.training.sinks.sink import PROJECT, Sink, flat, identity


class WandB(Sink):
    packages: ClassVar[tuple[str, ...]] = ("wandb",)
    extra: ClassVar[str] = "wandb"

    def open(self, start: Start) -> None:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":  # else its reports of its own errors would go over the network
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=start.name,
            id=identity(start.folder),
            resume="allow",
            mode=mode,
            dir=str(start.folder),
            config=flat(start.options),
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({**numbers, "step": step})

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
