"""MLflow: a database in the rung's folder, unless MLFLOW_TRACKING_URI names a server.

`mlflow ui --backend-store-uri sqlite:///RUN/rungs/NAME/mlflow.db` shows it. A training that goes on
keeps its MLflow run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from fitune.training.callbacks import Start
from fitune.training.sinks.sink import PROJECT, Sink, flat, identity

TAG = "fitune.id"


class MLflow(Sink):
    packages: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")
    extra: ClassVar[str] = "mlflow"

    def open(self, start: Start) -> None:
        from mlflow import MlflowClient

        # It tells of the tables it makes, in the middle of the progress.
        for name in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        own = f"sqlite:///{(start.folder / 'mlflow.db').absolute()}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", own)
        self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        mark = identity(start.folder)
        begun = self._client.search_runs([experiment], f"tags.`{TAG}` = '{mark}'", max_results=1)
        if begun:
            self._id = begun[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        made = self._client.create_run(experiment, run_name=start.name, tags={TAG: mark})
        self._id = made.info.run_id
        for option, value in flat(start.options).items():
            self._client.log_param(self._id, option, value)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
