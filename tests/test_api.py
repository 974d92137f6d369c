"""The public functions from end to end, on tiny models."""

from __future__ import annotations

import filecmp
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fitune
from fitune import api
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError, FituneError, Interrupted, RunError
from fitune.taskfile import load_task

WORDS = (("card", "lost"), ("pin", "change"), ("money", "help"))
ROWS = "text,label\n" + "".join(
    f"my {word} is {i} {'abcdefghij'[i % 10]} please,{label}\n"
    for i in range(16)
    for word, label in WORDS
)


class Told:
    """A watcher that remembers, and may act on progress."""

    def __init__(self, act: Callable[[str, int], None] = lambda label, done: None) -> None:
        self.act = act
        self.notices: list[str] = []
        self.rungs: list[str] = []

    def progress(self, label: str, done: int, total: int) -> None:
        assert 0 <= done <= total, f"{label} {done}/{total}"
        self.act(label, done)

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def rung(self, rung: Any) -> None:
        self.rungs.append(rung.name)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text(ROWS)
    return path


@pytest.fixture
def task(task_file: Any, rows: Path) -> Callable[..., Path]:
    def write(*approaches: dict[str, Any], **fields: Any) -> Path:
        given = {"kind": "classify", "data": {"train": str(rows)}, **fields}
        return task_file(approaches=list(approaches), **given)

    return write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, rows: Path, tiny_encoder: Path) -> Any:
    """A finished ladder, and who was told of it."""
    import yaml

    folder = tmp_path_factory.mktemp("ladder")
    tuned = {"use": "finetuned", "name": "tuned", "model": str(tiny_encoder), "epochs": 1}
    (folder / "t.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "whole",
                "kind": "classify",
                "data": {"train": str(rows)},
                "output": str(folder / "runs"),
                # Not in the ladder's order: the ladder puts the cheap ones first.
                "approaches": [tuned, {"use": "linear"}, {"use": "majority"}],
            }
        )
    )
    told = Told()
    return fitune.ladder(folder / "t.yaml", on=told), told, folder / "t.yaml"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_run_folder_is_complete(run: Any) -> None:
    result, told, file = run
    assert result.run.name == "whole-1"
    assert [r.name for r in result.rungs] == told.rungs == ["majority", "linear", "tuned"]
    assert {p.name for p in result.run.iterdir()} == {
        "task.json", "environment.json", "verb.json", "data.json", "rows.test.jsonl", "rungs",
        "ladder.json", "report.html", ".lock",
    }  # fmt: skip
    assert fitune.Task.model_validate(read(result.run / "task.json")) == load_task(file)
    assert read(result.run / "environment.json")["versions"]["fitune"] == fitune.__version__
    about = read(result.run / "data.json")
    test = lines(result.run / "rows.test.jsonl")
    assert len(test) == about["test"] and about["labels"] == ["change", "help", "lost"]
    assert about["notes"] == list(result.notes) and told.notices[: len(result.notes)]
    state = read(result.run / "ladder.json")
    assert state["status"] == "done" and state["rungs"] == told.rungs
    assert state["recommendation"]["choice"] == result.recommendation.choice
    for rung in result.rungs:
        folder = result.run / "rungs" / rung.name
        assert [p["key"] for p in lines(folder / "predictions.jsonl")] == [t["key"] for t in test]
        assert read(folder / "rung.json") == json.loads(json.dumps(rung.to_json()))
        right = [
            p["text"] == t["answer"]
            for p, t in zip(lines(folder / "predictions.jsonl"), test, strict=True)
        ]
        assert rung.value == pytest.approx(sum(right) / len(right))
        assert any((folder / "model").iterdir())
    options = read(result.run / "rungs/tuned/options.json")
    unknown = {name for name, value in options.items() if value is None}
    assert unknown <= {
        "max_train_rows",
        "freeze_layers",
        "dropout",
        "checkpoint_steps",
        "adapter",
        "class_weights",
        "dpo_beta",
        "ema",
        "lora_plus",
        "neftune",
        *("context", "passages", "context_tokens"),
    }, "every default that is chosen is visible"
    records = lines(result.run / "rungs/tuned/metrics.jsonl")
    train = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in train] == list(range(1, len(train) + 1))
    assert set(train[0]) == {
        "kind", "step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "seconds",
    }  # fmt: skip
    assert [set(r) for r in records if r["kind"] == "validation"] == [
        {"kind", "step", "epoch", "loss", "score"}
    ]


def test_results_are_json(run: Any, rows: Path) -> None:
    result, _, file = run
    for record in (
        result.to_json(),
        fitune.evaluate(result.run, rows).to_json(),
        fitune.check(file, show=1).to_json(),
        fitune.plan(file),
        fitune.doctor().to_json(),
    ):
        again = json.loads(json.dumps(record))
        assert again.keys() == record.keys()
        assert json.loads(json.dumps(again)) == again


@pytest.mark.parametrize("rung", ["majority", "linear", "tuned"])
def test_a_loaded_rung_answers_as_in_its_run(run: Any, rung: str) -> None:
    folder = run[0].run
    model = fitune.load(folder, rung)
    test = lines(folder / "rows.test.jsonl")
    before = lines(folder / "rungs" / rung / "predictions.jsonl")
    after = model.predict([row["text"] for row in test])
    assert [p.text for p in after] == [p["text"] for p in before]
    for one, other in zip(after, before, strict=True):
        assert one.scores == pytest.approx(other["scores"], abs=1e-5)
        assert sum(one.scores) == pytest.approx(1)
    assert model.predict([]) == []


def test_load_takes_the_recommended_rung(run: Any) -> None:
    assert fitune.load(run[0].run).rung == run[0].recommendation.choice


def test_a_model_trained_on_a_gpu_answers_without(run: Any, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run[0].run, copy)
    (copy / "task.json").write_text(json.dumps({**read(copy / "task.json"), "device": "cuda"}))
    assert fitune.load(copy, "tuned").predict(["my card"])


def test_evaluate_scores_new_rows(run: Any, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("text,label\nmy card is gone,lost\nmy pin please,change\nmy pin now,lost\n")
    result = fitune.evaluate(run[0].run, new, rung="linear")
    said = [p.text for p in fitune.load(run[0].run, "linear").predict(
        ["my card is gone", "my pin please", "my pin now"]
    )]  # fmt: skip
    assert [p["prediction"] for p in result.predictions] == said
    assert result.value == pytest.approx(
        sum(a == b for a, b in zip(said, ["lost", "change", "lost"], strict=True)) / 3
    )
    assert (result.rows, result.rung, result.metric) == (3, "linear", "accuracy")
    assert result.predictions[1]["source"].endswith("new.csv:3")
    assert set(result.metrics) == {"macro_f1", "mcc", "ece", "brier", "nll"}
    assert result.interval.low <= result.value <= result.interval.high


def test_tune_trains_the_one_rung(task: Any, tiny_encoder: Path) -> None:
    one = {"use": "finetuned", "model": str(tiny_encoder), "epochs": 1, "max_train_rows": 16}
    file = task({"use": "majority"}, {**one, "name": "a"}, {**one, "name": "b"})
    result = fitune.tune(file, rung="b")
    assert result.rung.name == "b" and result.rung.train_rows == 16
    assert [p.name for p in (result.run / "rungs").iterdir()] == ["b"]
    assert fitune.load(result.run).rung == "b"
    assert json.loads(json.dumps(result.to_json()))["run"] == str(result.run)
    assert fitune.tune(resume=result.run).rung == result.rung
    with pytest.raises(RunError, match="tunes 'b', not 'a'"):
        fitune.tune(resume=result.run, rung="a")
    with pytest.raises(RunError, match="started by fitune tune"):
        fitune.ladder(resume=result.run)


def test_the_target_stops_the_ladder(task: Any, tiny_encoder: Path) -> None:
    tuned = {"use": "finetuned", "model": str(tiny_encoder)}
    result = fitune.ladder(task({"use": "majority"}, tuned, target=0.1))
    assert [r.name for r in result.rungs] == ["majority"]
    assert read(result.run / "ladder.json")["status"] == "target"
    assert "not tried" in result.recommendation.sentences[1]


def test_names_are_unique(task: Any) -> None:
    many = {"use": "majority"}
    result = fitune.ladder(task(many, {"use": "majority", "name": "majority-2"}, many, many))
    names = [r.name for r in result.rungs]
    assert sorted(names) == ["majority", "majority-2", "majority-3", "majority-4"]
    again = fitune.ladder(task({"use": "linear", "name": "majority"}, many))
    assert [r.name for r in again.rungs] == ["majority-2", "majority"]
    assert (result.run.name, again.run.name) == ("task-1", "task-2")
    with pytest.raises(ConfigError, match="two approaches are called 'x'"):
        fitune.plan(task({"use": "linear", "name": "x"}, {**many, "name": "x"}))


def test_plan_changes_nothing_and_runs_nothing(task: Any, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    file = task({"use": "linear", "regularization": 3}, {"use": "majority"})
    plan = fitune.plan(file, overrides=["data.max_rows.test=5"])
    assert list(plan["rungs"]) == ["majority", "linear"]
    assert plan["rungs"]["linear"]["regularization"] == 3
    assert (plan["metric"], plan["data"]["test"]) == ("accuracy", 5)
    assert sorted(tmp_path.rglob("*")) == [*before, file]


def test_a_task_object_is_as_good_as_a_file(task: Any) -> None:
    file = task({"use": "majority"})
    assert fitune.plan(load_task(file)) == fitune.plan(file)
    with pytest.raises(ConfigError, match="a Task was given"):
        fitune.plan(load_task(file), overrides=["seed=1"])
    with pytest.raises(ConfigError, match="there is no task"):
        fitune.ladder()


# --- interruption --------------------------------------------------------------------------------


def interrupted(file: Path, at: str, step: int = 0, number: int = signal.SIGINT) -> Path:
    """The run left behind when a signal arrives at that progress."""

    def act(label: str, done: int) -> None:
        if label == at and done == step:
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        fitune.ladder(file, on=Told(act), fresh=True)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    words = shlex.split(caught.value.resume)
    assert words[:3] == ["fitune", "ladder", "--resume"]
    return Path(words[3])


@pytest.mark.parametrize(
    ("at", "step", "number", "finished"),
    [
        ("tuned: training", 3, signal.SIGINT, ["majority"]),
        ("tuned: training", 5, signal.SIGTERM, ["majority"]),
        ("tuned: answering", 1, signal.SIGINT, ["majority"]),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_end(
    task: Any, tiny_encoder: Path, tmp_path: Path, at: str, step: int, number: int, finished: Any
) -> None:
    tuned = {
        "use": "finetuned", "name": "tuned", "model": str(tiny_encoder), "epochs": 2,
        "batch_size": 8, "evaluations_per_epoch": 2,
    }  # fmt: skip
    # A space in the path: the command that goes on must survive a shell.
    file = task({"use": "majority"}, tuned, output=str(tmp_path / "my runs"))
    straight = fitune.ladder(file)
    if at == "tuned: answering":
        step = straight.rungs[0].train_rows and len(lines(straight.run / "rows.test.jsonl"))
    stopped = interrupted(file, at, step, number)
    assert stopped.parent.name == "my runs"
    assert read(stopped / "ladder.json")["status"] == "running"
    assert "tuned" in (stopped / "report.html").read_text()
    assert sorted(p.parent.name for p in stopped.glob("rungs/*/rung.json")) == finished
    with pytest.raises(RunError, match="not finished"):
        fitune.load(stopped)
    assert fitune.load(stopped, "majority").predict(["a"])

    told = Told()
    resumed = fitune.ladder(resume=stopped, on=told)
    assert resumed.run == stopped and told.rungs == ["majority", "tuned"]
    assert fitune.ladder(file, resume=stopped).rungs == resumed.rungs, "and again, at once"
    for one, other in zip(straight.rungs, resumed.rungs, strict=True):
        for name in ("value", "interval", "metrics", "comparison", "train_rows", "parameters"):
            assert getattr(one, name) == getattr(other, name)
    for name in ("rows.test.jsonl", "rungs/tuned/predictions.jsonl", "data.json", "task.json"):
        assert filecmp.cmp(straight.run / name, stopped / name, shallow=False), name
    model = Path("rungs/tuned/model")
    weights = [p.relative_to(straight.run) for p in (straight.run / model).rglob("*.safetensors")]
    assert len(weights) == 2
    for path in weights:
        assert filecmp.cmp(straight.run / path, stopped / path, shallow=False), path
    records = [
        [{**r, "seconds": 0} for r in lines(run / "rungs/tuned/metrics.jsonl")]
        for run in (straight.run, stopped)
    ]
    assert records[0] == records[1]


def test_stopped_before_anything_was_learned(task: Any) -> None:
    run = interrupted(task({"use": "linear"}, {"use": "majority"}), "reading rows", 1)
    assert [r.name for r in fitune.ladder(resume=run).rungs] == ["majority", "linear"]


# --- a user's own parts --------------------------------------------------------------------------

PLUG = '''
from fitune.approaches.base import Cost, Prediction
from fitune.runs import read_json, write_json


def half_right(predictions, references):
    return sum(a[:1] == b[:1] for a, b in zip(predictions, references)) / len(references)


class LastWord:
    """The label most often seen with the second word."""

    def __init__(self, options, work):
        self.work, self.known = work, {}
        self.options = options.model_dump()

    def fit(self, train, validation):
        self.known = {row.text.split()[1]: row.answer for row in train}

    def predict(self, rows, progress):
        return [Prediction(self.known.get(row.text.split()[1], "?")) for row in rows]

    @property
    def cost(self):
        return Cost(len(self.known), len(self.known), 0)

    def save(self, folder):
        write_json(folder / "known.json", self.known)

    @classmethod
    def load(cls, folder, work):
        made = cls.__new__(cls)
        made.known = read_json(folder / "known.json")
        return made
'''


def test_own_approach_and_own_metric(
    task: Any, tmp_path: Path, monkeypatch: Any, rows: Path
) -> None:
    (tmp_path / "own_parts_of_mine.py").write_text(PLUG)
    monkeypatch.chdir(tmp_path)
    file = task(
        {"use": "own_parts_of_mine:LastWord", "options": {"any": [1, "b"]}},
        {"use": "majority"},
        metric="own_parts_of_mine:half_right",
    )
    result = fitune.ladder(file)
    assert [r.name for r in result.rungs] == ["majority", "LastWord"]
    assert result.rungs[1].metric == "own_parts_of_mine:half_right"
    assert result.rungs[1].value == 1.0 and "accuracy" in result.rungs[1].metrics
    assert read(result.run / "rungs/LastWord/options.json")["options"] == {"any": [1, "b"]}
    assert [p.text for p in fitune.load(result.run).predict(["my card", "my pin"])] == [
        "lost", "change",
    ]  # fmt: skip
    assert fitune.evaluate(result.run, rows, rung="LastWord").value == 1.0


# --- generate ------------------------------------------------------------------------------------


def test_generate_from_end_to_end(task_file: Any, questions: Path, tiny_decoder: Path) -> None:
    model = str(tiny_decoder)
    file = task_file(
        kind="generate",
        data={"train": str(questions)},
        max_answer_tokens=8,
        approaches=[
            {"use": "majority"},
            {"use": "prompt", "model": model},
            {"use": "few-shot", "model": model, "examples": 1},
            {"use": "finetuned", "name": "tuned", "model": model, "epochs": 4, "method": "full"},
        ],
    )
    result = fitune.ladder(file)
    assert [r.name for r in result.rungs] == ["majority", "prompt", "few-shot", "tuned"]
    assert {r.metric for r in result.rungs} == {"token_f1"}
    assert set(result.rungs[0].metrics) == {
        "exact_match", "rouge_l", "chrf", "rouge_1", "rouge_2", "bleu",
    }  # fmt: skip
    test = len(lines(result.run / "rows.test.jsonl"))
    for rung in result.rungs[1:]:
        answers = lines(result.run / "rungs" / rung.name / "predictions.jsonl")
        assert {type(a["stopped"]) for a in answers} == {bool}
        stopped = sum(a["stopped"] for a in answers)
        assert rung.notes[-1].startswith(f"{stopped} of {test} answers ended by themselves")
    losses = [
        r["loss"] for r in lines(result.run / "rungs/tuned/metrics.jsonl")
        if r["kind"] == "validation"
    ]  # fmt: skip
    assert losses[-1] < losses[0]
    page = (result.run / "report.html").read_text()
    assert "what colour is number" in page and "tuned" in page
    answer = fitune.load(result.run, "tuned").predict(["what colour is number 3"])[0]
    assert answer.scores is None and isinstance(answer.stopped, bool)
    shown = fitune.check(file, show=2)
    assert len(shown.shown) == 2
    learned = "".join(text for text, is_learned, _ in shown.shown[0].tokens if is_learned)
    assert learned.startswith("the colour is ") and learned.endswith("<|end|>")


# --- check ---------------------------------------------------------------------------------------


def test_check_looks_at_data_without_a_task(rows: Path, questions: Path) -> None:
    labels = fitune.check(rows)
    assert labels.labels == ("change", "help", "lost")
    assert labels.train + labels.validation + labels.test == 48
    assert "taken as kind classify" in labels.notes[0]
    answers = questions.with_name("free.jsonl")
    answers.write_text(
        "".join(json.dumps({"question": f"q{i}", "reply": f"r{i}"}) + "\n" for i in range(20))
    )
    free = fitune.check(answers)
    assert free.labels == () and "taken as kind generate" in free.notes[0]
    assert fitune.check(rows, kind="generate").labels == ()
    assert fitune.check(rows, overrides=["data.max_rows.test=3"]).test == 3


def test_check_finds_category_columns(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    path.write_text(ROWS.replace("text,label", "text,category"))
    assert fitune.check(path).labels == ("change", "help", "lost")


def test_check_orders_findings_and_shows_an_encoders_tokens(task: Any, tiny_encoder: Path) -> None:
    told = Told()
    tuned = {"use": "finetuned", "model": str(tiny_encoder)}
    result = fitune.check(task({"use": "majority"}, tuned), show=3, on=told)
    levels = [("error", "warning", "info").index(f.level) for f in result.findings]
    assert levels == sorted(levels) and levels
    assert len(result.shown) == 3
    tokens = [text for text, _, _ in result.shown[0].tokens]
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")


def test_doctor_knows_every_extra_and_packaged_model() -> None:
    found = fitune.doctor()
    assert {extra.name for extra in found.extras} >= {"models", "data", "dev"}
    assert {model.name for model in found.models} == {"smollm2-135m", "minilm-l6"}
    assert all(model.path is None or model.path.is_file() for model in found.models)


def test_every_user_mistake_is_a_fitune_error(run: Any, tmp_path: Path) -> None:
    """The command line turns these into sentences; a program must be able to catch one class."""
    for call in (
        lambda: fitune.ladder("none.yaml"),
        lambda: fitune.tune("none.yaml"),
        lambda: fitune.plan("none.yaml"),
        lambda: fitune.evaluate(run[0].run, "none.csv"),
        lambda: fitune.load(tmp_path),
        lambda: fitune.check("none.csv"),
        lambda: fitune.ladder(resume="none"),
    ):
        with pytest.raises(FituneError):
            call()


def test_labels_the_run_never_saw_are_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text,label\na,lost\nb,sold\nc,sold\n")
    with pytest.raises(DataError, match=r"2 of 3 rows have a label .* such as 'sold' \(.*csv:3\)"):
        fitune.evaluate(run[0].run, tmp_path / "new.csv")


def test_predict_rows_takes_conversations(run: Any) -> None:
    from fitune.data.rows import Turn

    model = fitune.load(run[0].run, "linear")
    row = Row("and now?", history=(Turn("user", "my card is gone"), Turn("assistant", "oh")))
    assert model.predict_rows(Rows((row,)))[0].text == "lost"


@pytest.mark.parametrize("first", ["import fitune.ladder.rung", "from fitune import api", "pass"])
def test_ladder_is_the_verb_whatever_was_imported_before(first: str) -> None:
    code = (
        f"{first}\nimport fitune\nassert fitune.ladder is fitune.ladder\n"
        "from fitune.api import ladder\nassert fitune.ladder is ladder\n"
        "from fitune.ladder.rung import Rung\nassert fitune.ladder is ladder"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_silence_is_the_default() -> None:
    quiet = api.Silent()
    quiet.progress("a", 0, 1)
    quiet.notice("a")
