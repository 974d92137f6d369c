"""Plots, confusion and examples: the figures behind the page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fitune.evaluation.significance import Interval
from fitune.ladder.price import costs
from fitune.ladder.rung import Rung
from fitune.report.confusion import confusion
from fitune.report.examples import EXAMPLES, MISTAKES, judge, side_by_side, worst_mistakes
from fitune.report.gather import RungFolder, gather
from fitune.report.pictures import quality_against_cost
from fitune.report.plots import POINTS, axis, learning_curves

MakeRun = Callable[..., Path]
finite = st.floats(-1e6, 1e6)


@settings(deadline=None)
@given(finite, finite)
def test_axes_enclose_their_values_with_round_ticks(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assume(high - low > 1e-6 or high == low)
    scale = axis(low, high)
    slack = 1e-9 * (1 + abs(low) + abs(high)) + 1e-6 * (scale.high - scale.low)
    assert scale.low <= low + slack and high - slack <= scale.high
    assert 0 - 1e-3 <= scale.at(low) <= scale.at(high) <= 100 + 1e-3
    assert 2 <= len(scale.ticks) <= 9
    assert scale.ticks[0][0] == 0 and scale.ticks[-1][0] == 100
    values = [float(text.replace("−", "-")) for _, text in scale.ticks]
    steps = np.diff(values)
    assert (steps > 0).all() and np.allclose(steps, steps[0], rtol=1e-6)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert any(abs(mantissa - round_one) < 1e-6 for round_one in (1, 2, 5, 10))


def test_axis_of_an_accuracy() -> None:
    scale = axis(0.012, 0.91)
    assert [text for _, text in scale.ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert scale.at(0.5) == 50


def curves(*records: dict[str, object]) -> RungFolder:
    return RungFolder("r", records=records)


def test_learning_curves() -> None:
    train = [{"kind": "train", "epoch": i / 500, "loss": 4.0 - i / 500} for i in range(1, 1001)]
    checked = [{"kind": "validation", "epoch": e, "loss": 3.0, "score": s}
               for e, s in ((1.0, 0.5), (2.0, 0.9), (3.0, 0.8))]  # fmt: skip
    loss, score = learning_curves(curves(*train, *checked), "accuracy")
    assert [curve.name for curve in loss.curves] == ["training", "validation"]
    points = loss.curves[0].points
    assert len(points) == POINTS
    assert points == tuple(sorted(points)) and [y for _, y in points] == sorted(
        y for _, y in points
    )  # a falling loss falls: y grows downwards
    assert loss.curves[0].path.count("L") == POINTS - 1
    assert score.title == "Validation accuracy" and score.caption == "best 0.900 after epoch 2"
    assert score.curves[0].summary == "validation from 0.500 to 0.800"


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert learning_curves(curves(), "accuracy") == []
    odd = [
        {"kind": "train", "epoch": 1.0, "loss": float("nan")},
        {"kind": "train", "epoch": None, "loss": 1.0},
        {"kind": "validation", "epoch": 1.0, "loss": None, "score": None},
        {"kind": "other", "epoch": 1.0, "loss": 1.0},
        {},
    ]
    assert learning_curves(curves(*odd), "accuracy") == []
    one = {"kind": "validation", "epoch": 1.0, "loss": None, "score": 0.5}
    (panel,) = learning_curves(curves(*odd, one), "accuracy")
    assert len(panel.curves[0].points) == 1 and panel.y.low < 0.5 < panel.y.high


labels = st.sampled_from(["a", "b", "c", "<d>"])


@settings(deadline=None)
@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=60))
@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of labels that are never predicted
def test_confusion_equals_scikit_learn(rows: list[tuple[str, str]]) -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    truth, said = [t for t, _ in rows], [s for _, s in rows]
    made = confusion(truth, said)
    matrix = confusion_matrix(truth, said, labels=list(made.labels))
    mine = [[cell.count if cell else 0 for cell in row] for row in made.grid]
    assert mine == matrix.tolist()
    theirs = precision_recall_fscore_support(truth, said, labels=list(made.labels), zero_division=0)
    for label, *figures in zip(made.labels, *theirs, strict=True):
        found = next(f for f in made.figures if f.label == label)
        assert [found.precision, found.recall, found.f1, found.rows] == pytest.approx(figures)
    off = sorted((int(n) for i, r in enumerate(matrix) for j, n in enumerate(r) if i != j and n),
                 reverse=True)  # fmt: skip
    assert [pair.count for pair in made.pairs] == off[:12]
    assert all(0 < cell.shade <= 1 for cell in made.cells)


def test_worst_mistakes_are_the_surest_wrong_answers(make_run: MakeRun) -> None:
    run = gather(make_run(rows=60))
    assert run.focus is not None and run.focus.name == "rung-2"
    mistakes = worst_mistakes(run, judge(run, run.focus))
    assert len(mistakes) == MISTAKES
    assert all(not m.answers[0].right for m in mistakes)
    sure = [m.answers[0].answer.top[0][1] for m in mistakes]
    assert sure == sorted(sure, reverse=True)
    assert mistakes[0].row.text.startswith("text number 56")  # the last row of every fourth


def test_examples_cover_the_patterns_of_right_and_wrong(make_run: MakeRun) -> None:
    run = gather(make_run(rows=60))
    judged = [judge(run, rung) for rung in run.rungs]
    chosen = side_by_side(run, judged, 0)
    assert len(chosen) == EXAMPLES
    patterns = [tuple(answer.right for answer in e.answers) for e in chosen]
    everything = {tuple(rung[i].right for rung in judged) for i in range(60)}
    assert len(set(patterns)) == min(EXAMPLES, len(everything)) > 3
    assert len({e.row.text for e in chosen}) == EXAMPLES, "no row is shown twice"


def test_examples_of_answers_run_from_best_to_worst(make_run: MakeRun) -> None:
    run = gather(make_run(rows=60, kind="generate"))
    judged = [judge(run, rung) for rung in run.rungs]
    scores = [example.answers[1].score for example in side_by_side(run, judged, 1)]
    assert scores[0] == 1.0 and scores[-1] == 0.0 and scores == sorted(scores, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_few_rows_are_all_shown(make_run: MakeRun, rows: int) -> None:
    for kind in ("classify", "generate"):
        run = gather(make_run(rows=rows, kind=kind))
        chosen = side_by_side(run, [judge(run, rung) for rung in run.rungs], 0)
        assert len({example.row.text for example in chosen}) == min(rows, EXAMPLES)


def test_the_focus_is_the_choice_else_the_best(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "ladder.json").unlink()
    run = gather(folder)
    assert run.choice is None and run.status == "running"
    assert run.focus is not None and run.focus.name == "rung-2"
    (folder / "rungs/rung-2/predictions.jsonl").write_text("")
    found = gather(folder).focus
    assert found is not None and found.name == "rung-1"


def priced(name: str, value: float, train: float, answers: float) -> Rung:
    return Rung(name, "linear", None, None, "accuracy", value, Interval(value, value), {}, None,
                None, 1, train, answers, 1, 1, 1)  # fmt: skip


def test_the_front_of_quality_and_cost() -> None:
    rungs = [priced("a", 0.2, 0, 0.0), priced("b", 0.1, 10, 1), priced("c", 0.9, 3600, 9)]
    picture = quality_against_cost(rungs, costs(rungs, 1000, None), "c")
    assert picture is not None
    assert [spot.kind for spot in picture.spots] == ["on", "off", "chosen"]
    assert [spot.mark for spot in picture.spots] == ["1", "2", "3"]
    front = [s for s in picture.strokes if s.kind == "front"]
    (first, _, third) = picture.spots
    assert (front[0].x1, front[0].y1) == (first.x, first.y)
    assert (front[1].x2, front[1].y2) == (third.x, third.y) and front[-1].x2 == 100
    assert all(0 <= c <= 100 for s in picture.spots for c in (s.x, s.y))
    assert quality_against_cost(rungs[:1], costs(rungs[:1], 1, None), None) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e7)), min_size=2, max_size=9))
def test_any_costs_are_drawn_within_the_picture(figures: list[tuple[float, float]]) -> None:
    rungs = [priced(f"r{i}", value, train, 1.0) for i, (value, train) in enumerate(figures)]
    picture = quality_against_cost(rungs, costs(rungs, 10_000, None), None)
    assert picture is not None and 2 <= len(picture.x.ticks) <= 6
    for spot in picture.spots:
        assert -0.01 <= spot.x <= 100.01 and -0.01 <= spot.y <= 100.01
    for one, other in itertools.combinations(zip(rungs, picture.spots, strict=True), 2):
        if one[0].train_seconds < other[0].train_seconds:  # more to the right costs more
            assert one[1].x <= other[1].x
