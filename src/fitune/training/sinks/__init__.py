"""Where the records of a training go besides metrics.jsonl.

`SINKS` is the whole list: name in the task file → class. To add one, write a file and a line here;
a user's own is named in the task file as `package.module:Class`. Knows names; the libraries of
others are imported once a training starts.
"""

from __future__ import annotations

from collections.abc import Sequence

from fitune.errors import ConfigError
from fitune.names import lookup
from fitune.training.callbacks import Callback, check_callbacks

SINKS: dict[str, str] = {
    "tensorboard": "fitune.training.sinks.tensorboard:TensorBoard",
    "wandb": "fitune.training.sinks.wandb:WandB",
    "mlflow": "fitune.training.sinks.mlflow:MLflow",
    "trackio": "fitune.training.sinks.trackio:Trackio",
}


def make_sinks(names: Sequence[str]) -> tuple[Callback, ...]:
    """A sink for each name; nothing is written yet.

    Raises:
        ConfigError: no such name, or a class that cannot be made without arguments.
        MissingExtraError: its package is not installed.
    """
    made = []
    for name in names:
        sink = lookup(name, SINKS, "sink")
        if (require := getattr(sink, "require", None)) is not None:
            require()
        try:
            made.append(sink())
        except Exception as error:
            raise ConfigError(
                f"sink '{name}' cannot be made ({type(error).__name__}: {error})",
                fix="name a class whose constructor takes no arguments",
            ) from error
    return check_callbacks(made)
