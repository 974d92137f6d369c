"""Promise: every field of a task file has an effect.

Each field of `config` is changed once, and what the ladder does must change with it: rows, rungs,
losses, learning rates, answers, files or errors. What is merely written down (the task, an
approach's options) is not looked at. A field without a case fails the test.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from pydantic import BaseModel

from fitune import api, climbing, config
from fitune.errors import FituneError
from fitune.ladder import climb
from fitune.models.quiet import quiet
from fitune.taskfile import parse_task
from judge_kit import prefers_the_first, prefers_the_longer, serving

BOTH = "text,label,other,tag\n" + "".join(
    f"my {word} is {i} {'abcdefghij'[i % 10]} please,{label},new {word} {i} {label},{label[0]}\n"
    for i in range(12)
    for word, label in (("card", "lost"), ("pin", "change"), ("money", "help"))
)
MODEL = {"encoder": "ENCODER", "decoder": "DECODER"}
"""Replaced by the folders of tiny models."""


def tuned(**options: Any) -> dict[str, Any]:
    """A task that trains a tiny encoder for two epochs of five steps."""
    given = {"use": "finetuned", "model": "ENCODER", "epochs": 2, "batch_size": 8, "dtype": "fp32"}
    return {"approaches": [{**given, **options}]}


def one(use: str, **options: Any) -> dict[str, Any]:
    return {"approaches": [{"use": use, **options}]}


def data(**fields: Any) -> dict[str, Any]:
    return {"data": {"train": "rows.csv", **fields}}


def shots(**options: Any) -> dict[str, Any]:
    return one("few-shot", model="DECODER", examples=2, **options)


def recurrent(**options: Any) -> dict[str, Any]:
    return one("recurrent", **{"hidden": 8, "epochs": 2, **options})


LORA = tuned(method="lora")
PROMPT = one("prompt", model="DECODER")
SHOTS = one("few-shot", model="DECODER", examples=2)
WRITES = {**PROMPT, "kind": "generate", "max_answer_tokens": 4}
RAG = {**one("rag", model="DECODER", retriever="bm25"), **data(documents="facts.csv")}
GROUNDED = {**tuned(context="bm25"), **data(documents="facts.csv")}
VECTORS = one("embeddings", model="ENCODER")
SHORT = {"model": "DECODER", "epochs": 1, "max_length": 60}
PREFERS = {
    **tuned(**SHORT, objective="dpo"),
    **data(train="pairs.csv"),
    "kind": "generate",
    "max_answer_tokens": 4,
}
STILL = {"optimizer": "sgd", "learning_rate": 1e-30, "head_learning_rate": 1e-30, "epochs": 6}
"""Nothing moves, so no evaluation is better than the first."""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # field → (task, the task with that field changed); what is not given is as in `whole`.
    "Task.name": ({}, {"name": "other"}),
    "Task.kind": ({}, {"kind": "generate"}),
    "Task.instruction": (PROMPT, {**PROMPT, "instruction": "Say what the customer needs."}),
    "Task.data": ({}, data(train="other.csv")),
    "Task.metric": ({}, {"metric": "macro_f1"}),
    "Task.also": ({}, {"also": ["micro_f1"]}),
    "Task.target": (
        {"approaches": [{"use": "majority"}, {"use": "linear"}]},
        {"approaches": [{"use": "majority"}, {"use": "linear"}], "target": 0.1},
    ),
    "Task.approaches": ({}, one("linear")),
    "Task.max_answer_tokens": (WRITES, {**WRITES, "max_answer_tokens": 7}),
    "Task.chat_template": (PROMPT, {**PROMPT, "chat_template": "default"}),
    "Task.seed": (tuned(), {**tuned(), "seed": 1}),
    "Task.output": ({}, {"output": "elsewhere"}),
    "Data.train": ({}, data(train="other.csv")),
    "Data.validation": (tuned(), {**tuned(), **data(validation="other.csv")}),
    "Data.test": ({}, data(test="other.csv")),
    "Data.format": (data(train="tabs.csv"), data(train="tabs.csv", format="csv")),
    "Data.shape": ({}, data(shape="alpaca")),
    "Data.input": (one("linear"), {**one("linear"), **data(input="other")}),
    "Data.output": ({}, data(output="tag")),
    "Data.encoding": (
        {**one("linear"), **data(train="accents.csv")},
        {**one("linear"), **data(train="accents.csv", encoding="latin-1")},
    ),
    "Data.validation_fraction": ({}, data(validation_fraction=0.3)),
    "Data.test_fraction": ({}, data(test_fraction=0.4)),
    "Data.split_seed": ({}, data(split_seed=1)),
    "Data.documents": (
        {**RAG, **data(documents="facts.csv")},
        {**RAG, **data(documents="other.csv")},
    ),
    "Data.max_rows": ({}, data(max_rows={"test": 6})),
    "Data.too_long": (
        tuned(max_length=7),
        {**tuned(max_length=7), **data(too_long="truncate")},
    ),
    "RowCaps.train": ({}, data(max_rows={"train": 9})),
    "RowCaps.validation": ({}, data(max_rows={"validation": 2})),
    "RowCaps.test": ({}, data(max_rows={"test": 6})),
    **{
        f"{kind.__name__}.name": (base, _changed)
        for kind, base, _changed in [
            (config.Majority, {}, one("majority", name="mine")),
            (config.Linear, one("linear"), one("linear", name="mine")),
            (config.NGram, one("ngram"), one("ngram", name="mine")),
            (config.Hmm, one("hmm"), one("hmm", name="mine")),
            (config.Recurrent, recurrent(), recurrent(name="mine")),
            (config.Knn, one("knn", retriever="bm25"), one("knn", retriever="bm25", name="mine")),
            (config.Embeddings, VECTORS, one("embeddings", model="ENCODER", name="mine")),
            (config.Prompt, PROMPT, one("prompt", model="DECODER", name="mine")),
            (config.FewShot, SHOTS, one("few-shot", model="DECODER", examples=2, name="mine")),
            (config.Finetuned, tuned(), tuned(name="mine")),
            (config.Custom, one("plug:Constant"), one("plug:Constant", name="mine")),
        ]
    },
    "Majority.max_train_rows": ({}, one("majority", max_train_rows=9)),
    "Linear.max_train_rows": (one("linear"), one("linear", max_train_rows=9)),
    "NGram.max_train_rows": (one("ngram"), one("ngram", max_train_rows=9)),
    "Hmm.max_train_rows": (one("hmm"), one("hmm", max_train_rows=9)),
    "Recurrent.max_train_rows": (recurrent(), recurrent(max_train_rows=9)),
    "Embeddings.max_train_rows": (VECTORS, one("embeddings", model="ENCODER", max_train_rows=9)),
    "Knn.max_train_rows": (
        one("knn", retriever="bm25"),
        one("knn", retriever="bm25", max_train_rows=9),
    ),
    "Prompt.max_train_rows": (PROMPT, one("prompt", model="DECODER", max_train_rows=9)),
    "FewShot.max_train_rows": (
        SHOTS,
        one("few-shot", model="DECODER", examples=2, max_train_rows=9),
    ),
    "Finetuned.max_train_rows": (tuned(), tuned(max_train_rows=9)),
    "Custom.max_train_rows": (one("plug:Constant"), one("plug:Constant", max_train_rows=9)),
    "Linear.regularization": (one("linear"), one("linear", regularization=0.1)),
    "NGram.word_order": (one("ngram"), one("ngram", word_order=1)),
    "NGram.character_order": (one("ngram"), one("ngram", character_order=1)),
    "NGram.smoothing": (one("ngram"), one("ngram", smoothing="absolute")),
    "Hmm.tokens": (one("hmm"), one("hmm", tokens="characters")),
    "Hmm.states": (one("hmm"), one("hmm", states=1)),
    "Hmm.iterations": (one("hmm"), one("hmm", iterations=1)),
    "Hmm.smoothing": (one("hmm"), one("hmm", smoothing=1.0)),
    "Hmm.seed": (one("hmm"), one("hmm", seed=1)),
    "Recurrent.cell": (recurrent(), recurrent(cell="lstm")),
    "Recurrent.tokens": (recurrent(), recurrent(tokens="characters")),
    "Recurrent.hidden": (recurrent(), recurrent(hidden=9)),
    "Recurrent.layers": (recurrent(), recurrent(layers=2)),
    "Recurrent.bidirectional": (recurrent(), recurrent(bidirectional=False)),
    "Recurrent.dropout": (recurrent(), recurrent(dropout=0.0)),
    "Recurrent.word_dropout": (recurrent(), recurrent(word_dropout=0.5)),
    "Recurrent.epochs": (recurrent(), recurrent(epochs=1)),
    "Recurrent.learning_rate": (recurrent(), recurrent(learning_rate=1e-5)),
    "Recurrent.batch_size": (recurrent(), recurrent(batch_size=4)),
    "Recurrent.seed": (recurrent(), recurrent(seed=1)),
    "Embeddings.model": (VECTORS, one("embeddings", model="WIDE")),
    "Embeddings.regularization": (VECTORS, one("embeddings", model="ENCODER", regularization=0.1)),
    "Knn.retriever": (
        one("knn", retriever="hybrid", model="ENCODER"),
        one("knn", retriever="dense", model="ENCODER"),
    ),
    "Knn.model": (
        one("knn", retriever="dense", model="ENCODER"),
        one("knn", retriever="dense", model="WIDE"),
    ),
    "Knn.neighbours": (
        one("knn", retriever="bm25", neighbours=1),
        one("knn", retriever="bm25", neighbours=9),
    ),
    "Prompt.model": (PROMPT, one("prompt", model="BASE")),
    "Prompt.max_length": (
        {**PROMPT, **data(too_long="truncate")},
        {**one("prompt", model="DECODER", max_length=50), **data(too_long="truncate")},
    ),
    "Prompt.instructions": (
        PROMPT,
        one("prompt", model="DECODER", instructions=["What is it about?"]),
    ),
    "Prompt.show_labels": (PROMPT, one("prompt", model="DECODER", show_labels=False)),
    "Prompt.label_words": (PROMPT, one("prompt", model="DECODER", label_words={"lost": "gone"})),
    "Prompt.normalize": (PROMPT, one("prompt", model="DECODER", normalize="mean")),
    "Prompt.calibrate": (PROMPT, one("prompt", model="DECODER", calibrate="contextual")),
    "Prompt.stop": (WRITES, {**WRITES, **one("prompt", model="DECODER", stop=list("aeiou rst"))}),
    "Prompt.choices": (WRITES, {**WRITES, **one("prompt", model="DECODER", choices=["a", "b"])}),
    "Prompt.json_schema": (
        WRITES,
        {**WRITES, **one("prompt", model="DECODER", json_schema={"enum": [1, 2]})},
    ),
    "FewShot.model": (SHOTS, one("few-shot", model="BASE", examples=2)),
    "FewShot.examples": (SHOTS, one("few-shot", model="DECODER", examples=3)),
    "FewShot.instructions": (
        SHOTS,
        shots(instructions=["What is it about?"]),
    ),
    "FewShot.show_labels": (SHOTS, shots(show_labels=False)),
    "FewShot.label_words": (SHOTS, shots(label_words={"lost": "gone"})),
    "FewShot.normalize": (SHOTS, shots(normalize="mean")),
    "FewShot.calibrate": (SHOTS, shots(calibrate="contextual")),
    "FewShot.stop": (
        {**WRITES, **shots()},
        {**WRITES, **shots(stop=list("aeiou rst"))},
    ),
    "FewShot.choices": ({**WRITES, **shots()}, {**WRITES, **shots(choices=["a", "b"])}),
    "FewShot.json_schema": (
        {**WRITES, **shots()},
        {**WRITES, **shots(json_schema={"enum": [1, 2]})},
    ),
    "FewShot.select": (shots(select="nearest", retriever="bm25"), shots()),
    "FewShot.order": (
        shots(select="nearest", retriever="bm25"),
        shots(select="nearest", retriever="bm25", order="similar-first"),
    ),
    "FewShot.retriever": (
        shots(select="nearest", retriever="bm25"),
        shots(select="nearest", retriever="dense", encoder="ENCODER"),
    ),
    "FewShot.encoder": (
        shots(select="diverse", encoder="ENCODER"),
        shots(select="diverse", encoder="WIDE"),
    ),
    "FewShot.candidates": (
        shots(select="nearest", retriever="bm25"),
        shots(select="nearest", retriever="bm25", candidates="all"),
    ),
    "FewShot.max_length": (
        SHOTS,
        one("few-shot", model="DECODER", examples=2, max_length=110),
    ),
    "Finetuned.model": (tuned(), tuned(model="DECODER")),
    "Finetuned.method": (tuned(), tuned(method="head")),
    "Finetuned.objective": ({**PREFERS, **tuned(**SHORT)}, PREFERS),
    "Finetuned.dpo_beta": (
        PREFERS,
        {**PREFERS, **tuned(**SHORT, objective="dpo", dpo_beta=0.5)},
    ),
    "Finetuned.freeze_layers": (
        tuned(method="freeze", freeze_layers=1),
        tuned(method="freeze", freeze_layers=2),
    ),
    "Finetuned.rank": (LORA, tuned(method="lora", rank=4)),
    "Finetuned.alpha": (LORA, tuned(method="lora", alpha=64)),
    "Finetuned.lora_dropout": (LORA, tuned(method="lora", lora_dropout=0.5)),
    "Finetuned.rslora": (LORA, tuned(method="lora", rslora=True)),
    "Finetuned.lora_plus": (LORA, tuned(method="lora", lora_plus=4.0)),
    "Finetuned.lora_init": (LORA, tuned(method="lora", lora_init="pissa")),
    "Finetuned.target_modules": (LORA, tuned(method="lora", target_modules=["query"])),
    "Finetuned.virtual_tokens": (
        tuned(model="DECODER", method="prompt-tuning", epochs=1),
        tuned(model="DECODER", method="prompt-tuning", epochs=1, virtual_tokens=3),
    ),
    "Finetuned.optimizer": (tuned(), tuned(optimizer="sgd")),
    "Finetuned.learning_rate": (tuned(), tuned(learning_rate=1e-5)),
    "Finetuned.head_learning_rate": (tuned(), tuned(head_learning_rate=1e-5)),
    "Finetuned.layer_decay": (tuned(), tuned(layer_decay=0.5)),
    "Finetuned.weight_decay": (tuned(), tuned(weight_decay=1.0)),
    "Finetuned.schedule": (tuned(), tuned(schedule="constant")),
    "Finetuned.warmup": (tuned(), tuned(warmup=0.5)),
    "Finetuned.clip": (tuned(optimizer="sgd"), tuned(optimizer="sgd", clip=1e-3)),
    "Finetuned.epochs": (tuned(), tuned(epochs=1)),
    "Finetuned.batch_size": (tuned(), tuned(batch_size=4)),
    "Finetuned.micro_batch_tokens": (tuned(), tuned(micro_batch_tokens=40)),
    "Finetuned.label_smoothing": (tuned(), tuned(label_smoothing=0.3)),
    "Finetuned.class_weights": (tuned(), tuned(class_weights={"lost": 3.0})),
    "Finetuned.neftune": (tuned(), tuned(neftune=5.0)),
    "Finetuned.ema": (tuned(), tuned(ema=0.9)),
    "Finetuned.dropout": (tuned(), tuned(dropout=0.4)),
    "Finetuned.dtype": (tuned(), tuned(dtype="bf16")),
    "Finetuned.max_length": (
        {**tuned(), **data(too_long="truncate")},
        {**tuned(max_length=7), **data(too_long="truncate")},
    ),
    "Finetuned.context": ({**tuned(), **data(documents="facts.csv")}, GROUNDED),
    "Finetuned.passages": (GROUNDED, {**GROUNDED, **tuned(context="bm25", passages=1)}),
    "Finetuned.context_tokens": (
        GROUNDED,
        {**GROUNDED, **tuned(context="bm25", context_tokens=20)},
    ),
    "Finetuned.patience": (tuned(**STILL), tuned(**STILL, patience=1)),
    "Finetuned.evaluations_per_epoch": (tuned(), tuned(evaluations_per_epoch=2)),
    "Finetuned.checkpoint_steps": (tuned(), tuned(checkpoint_steps=2)),
    "Finetuned.seed": (tuned(), tuned(seed=1)),
    "Custom.use": (one("plug:Constant"), one("plug:Other")),
    "Custom.options": (one("plug:Constant"), one("plug:Constant", options={"answer": "help"})),
}


def rag(task: dict[str, Any] = PROMPT, **options: Any) -> dict[str, Any]:
    """A task of prompts, shown passages as well."""
    (asked,) = task["approaches"]
    shown = {**asked, **RAG["approaches"][0], "model": asked["model"], **options}
    fields = {**task.get("data", data()["data"]), "documents": "facts.csv"}
    return {**task, "data": fields, "approaches": [shown]}


CASES |= {
    **{
        field.replace("Prompt", "Rag"): (rag(before), rag(after))
        for field, (before, after) in CASES.items()
        if field.startswith("Prompt.")
    },
    "Rag.retriever": (rag(), rag(retriever="dense", encoder="ENCODER")),
    "Rag.retriever_options": (rag(), rag(retriever_options={"stopwords": ["my", "is"]})),
    "Rag.encoder": (
        rag(retriever="dense", encoder="ENCODER"),
        rag(retriever="dense", encoder="WIDE"),
    ),
    "Rag.passages": (rag(), rag(passages=1)),
    "Rag.passage_tokens": (rag(), rag(passage_tokens=3)),
    "Rag.context_tokens": (rag(), rag(context_tokens=20)),
    "Rag.rerank": (rag(), rag(rerank="CROSS")),
    "Rag.cite": (rag(WRITES), rag(WRITES, cite=True)),
    "Rag.not_found": (rag(WRITES), rag(WRITES, not_found="unknown")),
}

ELSEWHERE = {
    "Task.judge",
    "Judge.url",
    "Judge.model",
    "Judge.key_env",
    "Judge.criterion",
    "Judge.rows",
    "Task.device",
    "Task.track",
    "Task.download",
    "Task.trust_remote_code",
    "Finetuned.checkpointing",
    "Finetuned.adapter",
    "Finetuned.packing",
    "Finetuned.shared_prefix",
    "Finetuned.fused",
    "Finetuned.trunk_cache",
}
"""These depend on, or change, what is outside the outcome; each has a test of its own below."""

PLUG = """
from fitune.approaches.base import Cost, Prediction
from fitune.runs import write_json
from fitune.training.callbacks import Callback


class Constant:
    answer = "lost"

    def __init__(self, options, work):
        self.work = work
        self.options = options.model_dump()
        self.answer = options.options.get("answer", self.answer)
        self.rows = 0

    def fit(self, train, validation):
        self.rows = len(train)

    def predict(self, rows, progress):
        return [Prediction(self.answer) for _ in rows]

    @property
    def cost(self):
        return Cost(1, 0, self.rows)

    def save(self, folder):
        write_json(folder / "constant.json", self.answer)

    @classmethod
    def load(cls, folder, work):
        raise NotImplementedError


class Other(Constant):
    answer = "change"


class Sink(Callback):
    heard = []

    def on_step(self, record):
        self.heard.append(record)

    on_evaluate = on_step
"""


def every_field() -> Iterator[str]:
    """Class and name of each field; `use` of the known approaches is how they are told apart."""
    models: list[type[BaseModel]] = [
        config.Task, config.Data, config.RowCaps, config.Judge, *config.KNOWN.values(),
        config.Custom,
    ]  # fmt: skip
    for model in models:
        for name in model.model_fields:
            if name != "use" or model is config.Custom:
                yield f"{model.__name__}.{name}"


def test_every_field_has_a_case() -> None:
    assert sorted(CASES.keys() | ELSEWHERE) == sorted(every_field())


class Ladder:
    """Runs tasks and tells everything that they did; a task run before is not run again."""

    def __init__(self, folder: Path, models: dict[str, Path]) -> None:
        self.folder, self.models = folder, models
        self.known: dict[str, dict[str, Any]] = {}
        self.count = 0

    def whole(self, task: dict[str, Any]) -> dict[str, Any]:
        task = {"kind": "classify", **data(), **one("majority"), **copy.deepcopy(task)}
        for approach in task["approaches"]:
            for field in {"model", "encoder", "rerank"} & approach.keys():
                approach[field] = str(self.models[approach[field]])
        return task

    def outcome(self, task: dict[str, Any], *, again: bool = False) -> dict[str, Any]:
        key = json.dumps(task, sort_keys=True)
        if again or key not in self.known:
            self.known[key] = self._run(self.whole(task))
        return self.known[key]

    def _run(self, task: dict[str, Any]) -> dict[str, Any]:
        import fitune.training.loop as loop

        self.count += 1
        usual = str(self.folder / f"runs-{self.count}")
        shapes: list[Any] = []
        saved: list[int] = []
        step, save = loop.take_step, loop.checkpoints.save_checkpoint

        def take_step(model: Any, objective: Any, optimizer: Any, parts: Any, **how: Any) -> Any:
            shapes.append([list(part.input_ids.shape) for part in parts])
            return step(model, objective, optimizer, parts, **how)

        def save_checkpoint(folder: Any, number: int, *rest: Any) -> None:
            saved.append(number)
            save(folder, number, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "take_step", take_step)
            patch.setattr(loop.checkpoints, "save_checkpoint", save_checkpoint)
            # Two thirds of the time of so small a run, and no field is about them.
            patch.setattr(climbing, "write_report", lambda folder: None)
            patch.setattr(climb.gc, "collect", lambda: None)
            patch.setattr("fitune.runs.os.fsync", lambda handle: None)
            try:
                result = api.ladder(parse_task({"output": usual, **task}), fresh=True)
            except FituneError as error:
                return {"error": error.problem}
        return {
            "folder": result.run.name,
            "usual": str(result.run.parent) == usual,
            "notes": result.notes,
            "shapes": shapes,
            "saved": saved,
            "rungs": [self._rung(result.run, rung) for rung in result.rungs],
            "data": json.loads((result.run / "data.json").read_text()),
        }

    @staticmethod
    def _rung(run: Path, rung: Any) -> dict[str, Any]:
        folder = run / "rungs" / rung.name
        records = folder / "metrics.jsonl"
        lines = records.read_text().splitlines() if records.is_file() else []
        return {
            "name": rung.name,
            "figures": [rung.value, rung.train_rows, rung.parameters, rung.trainable_parameters],
            "further": rung.metrics,
            "notes": rung.notes,
            "answers": (folder / "predictions.jsonl").read_text(),
            "records": [{**json.loads(line), "seconds": 0} for line in lines],
        }


def save_cross_encoder(folder: Path, trunk: Path) -> Path:
    """The tiny BERT with a head of one output."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(trunk, num_labels=1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(trunk).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ladder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_decoder: Path,
    tiny_base_decoder: Path,
    tiny_encoder: Path,
    tiny_native_encoder: Path,
    wide_encoder: Path,
) -> Iterator[Ladder]:
    folder = tmp_path_factory.mktemp("fields")
    (folder / "rows.csv").write_text(BOTH)
    (folder / "other.csv").write_text(BOTH.replace("my ", "her "))
    (folder / "tabs.csv").write_text(BOTH.replace(",", "\t"))
    (folder / "accents.csv").write_bytes(BOTH.replace("my", "mé").encode("utf-8"))
    pairs = [f"my {w} {i},help {w},no {i}" for i in range(8) for w in ("card", "pin")]
    (folder / "pairs.csv").write_text("\n".join(["prompt,chosen,rejected", *pairs]))
    facts = [f"my {word} {i} is {i} {i}" for i in range(5) for word in ("card", "pin", "money")]
    (folder / "facts.csv").write_text("\n".join(["text", *facts]))
    (folder / "plug.py").write_text(PLUG)
    models = {"ENCODER": tiny_encoder, "DECODER": tiny_decoder, "BASE": tiny_base_decoder}
    models["WIDE"] = wide_encoder
    models["CROSS"] = save_cross_encoder(folder / "cross", tiny_native_encoder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield Ladder(folder, models)


@pytest.mark.parametrize("field", CASES)
def test_a_changed_field_changes_what_happens(ladder: Ladder, field: str) -> None:
    base, changed = CASES[field]
    before, after = ladder.outcome(base), ladder.outcome(changed)
    assert before != after
    # An error is the effect only where one is meant: these two refuse what does not fit.
    assert ("error" in before) == (field in ("Data.too_long",)), before
    assert ("error" in after) == (field in ("Data.format", "Data.shape")), after


@pytest.mark.parametrize("task", [tuned(), LORA, PROMPT, SHOTS, WRITES, one("linear")])
def test_nothing_changes_by_itself(ladder: Ladder, task: dict[str, Any]) -> None:
    """Without this, a difference above could be chance."""
    assert ladder.outcome(task) == ladder.outcome(task, again=True)


def test_judge(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field changes what a judge is asked, and without one nobody is."""
    monkeypatch.setenv("JUDGE_KEY", "sk-1")
    task = {"kind": "generate", "approaches": [{"use": "plug:Constant"}, {"use": "plug:Other"}]}

    def asked(**judge: Any) -> list[tuple[str, str]]:
        with serving(prefers_the_longer) as served, serving(prefers_the_first) as elsewhere:
            urls = {"url": elsewhere.url if judge.pop("url", None) else served.url}
            whole = {**task, "judge": {"model": "m", **urls, **judge}}
            assert "error" not in ladder.outcome(whole, again=True)
            keys = [headers.get("Authorization", "") for headers in served.headers]
            bodies = [json.dumps(body, sort_keys=True) for body in served.bodies]
            assert (urls["url"] == elsewhere.url) == bool(elsewhere.bodies)
        return sorted(zip(bodies, keys, strict=True))

    usual = asked()
    assert usual and usual == asked()
    for change in (
        {"model": "other"},
        {"url": "elsewhere"},
        {"key_env": "JUDGE_KEY"},
        {"criterion": "which is kinder"},
        {"rows": 1},
    ):
        assert asked(**change) != usual, change
    assert len(asked(rows=1)) == 2
    with serving(prefers_the_longer) as served:
        assert "error" not in ladder.outcome(task, again=True)
    assert not served.bodies
    judge = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    assert "kind is 'classify'" in ladder.outcome({"judge": judge})["error"]
    judge["key_env"] = "NO_SUCH_KEY"
    assert "'NO_SUCH_KEY'" in ladder.outcome({**task, "judge": judge})["error"]


def test_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fitune import entries
    from fitune.hardware import Gpu, Machine

    gpu = Gpu("a", 100, 60, (7, 5), False)
    machine = Machine("Linux", "a", 1, 90, 80, True, (gpu,), 10)
    monkeypatch.setattr(entries, "this_machine", lambda **_: machine)

    def work(device: str) -> tuple[str, str, int]:
        task = parse_task({"kind": "classify", "data": {"train": "a"}, "device": device})
        made = entries.make_work(
            task, (), entries.resolve_metric(task), folder=tmp_path, progress=print,
            notice=print, stop_requested=bool,
        )  # fmt: skip
        return made.device, made.dtype, made.memory_bytes

    assert work("auto") == work("cuda") == ("cuda", "fp32", 60)
    assert work("cpu") == ("cpu", "bf16", 80)


@pytest.mark.parametrize("model", ["ENCODER", "DECODER"])
def test_checkpointing(ladder: Ladder, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must change nothing but how often layers are computed, and so how much is kept."""
    from torch.utils import checkpoint

    calls = [0]
    counted = checkpoint.checkpoint

    def count(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        return counted(*arguments, **options)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", count)
    without = ladder.outcome(tuned(model=model, epochs=1))
    assert calls == [0]
    found = ladder.outcome(tuned(model=model, epochs=1, checkpointing=True))
    assert calls[0] > 0
    for rung in (without["rungs"][0], found["rungs"][0]):
        rung["losses"] = [record.get("loss") for record in rung["records"]]
    assert found["rungs"][0]["losses"] == pytest.approx(without["rungs"][0]["losses"], rel=1e-4)
    assert found["rungs"][0]["figures"] == without["rungs"][0]["figures"]


@pytest.mark.parametrize(
    ("field", "computed"),
    [
        ("packing", "fitune.training.kernels.packed_attention._Attend.forward"),
        ("shared_prefix", "fitune.training.kernels.packed_attention._shared"),
        ("fused", "fitune.training.kernels.head_loss._HeadLoss.forward"),
    ],
)
def test_what_makes_training_fast(
    ladder: Ladder, field: str, computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must change nothing but by what training is computed."""
    calls = [0]
    place, _, name = computed.rpartition(".")
    kernel = getattr(resolve_name(place), name)

    def count(*arguments: Any) -> Any:
        calls[0] += 1
        return kernel(*arguments)

    monkeypatch.setattr(computed, staticmethod(count))
    found = ladder.outcome(tuned(model="DECODER", epochs=1), again=True)["rungs"][0]
    assert calls[0] > 0
    calls[0] = 0
    without = ladder.outcome(tuned(model="DECODER", epochs=1, **{field: False}))["rungs"][0]
    assert calls == [0]
    losses = [[record["loss"] for record in rung["records"]] for rung in (found, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert found["figures"] == without["figures"]


def test_trunk_cache(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must change nothing but how often frozen layers are computed."""
    from transformers.models.bert.modeling_bert import BertLayer

    calls = [0]
    computed = BertLayer.forward

    def count(layer: Any, *arguments: Any, **options: Any) -> Any:
        calls[0] += not any(parameter.requires_grad for parameter in layer.parameters())
        return computed(layer, *arguments, **options)

    monkeypatch.setattr(BertLayer, "forward", count)
    task = {"method": "freeze", "freeze_layers": 1, "epochs": 4}
    rungs, frozen = [], []
    for wanted in (True, False):
        calls[0] = 0
        rungs.append(ladder.outcome(tuned(**task, trunk_cache=wanted))["rungs"][0])
        frozen.append(calls[0])
    assert frozen[0] < frozen[1] / 2
    losses = [[record["loss"] for record in rung["records"]] for rung in rungs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert rungs[0]["figures"] == rungs[1]["figures"]


def test_adapter(ladder: Ladder, tmp_path: Path) -> None:
    """Training goes on from the adapter of another run."""
    before = ladder.outcome(tuned(model="DECODER", method="lora"))
    ladder.outcome({**tuned(model="DECODER", method="lora"), "output": str(tmp_path)})
    (folder,) = tmp_path.glob("*/rungs/*/model/adapter")
    after = ladder.outcome(tuned(model="DECODER", method="lora", adapter=str(folder)))
    assert "error" not in after
    losses = [o["rungs"][0]["records"][0]["loss"] for o in (before, after)]
    assert losses[1] < losses[0]


def test_track(ladder: Ladder) -> None:
    """A sink of one's own hears the records that metrics.jsonl holds."""
    from plug import Sink  # type: ignore[import-not-found]  # written by the fixture

    task = tuned(epochs=1)
    assert Sink.heard == []
    before = ladder.outcome(task)
    after = ladder.outcome({**task, "track": ["plug:Sink"]})
    records = after["rungs"][0]["records"]
    assert [{**record, "seconds": 0} for record in Sink.heard] == records
    assert records == before["rungs"][0]["records"]


def test_download(ladder: Ladder) -> None:
    """Both fail here, where there is no network; only one of them tried."""
    task = one("plug:Constant") | data(train="hub:nobody/nothing")
    assert "not allowed" in ladder.outcome(task)["error"]
    assert "could not be fetched" in ladder.outcome({**task, "download": True})["error"]


def test_trust_remote_code(ladder: Ladder, tmp_path: Path, monkeypatch: Any) -> None:
    import shutil

    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder, ran = tmp_path / "own-code", tmp_path / "ran"
    shutil.copytree(ladder.models["ENCODER"], folder)
    about = json.loads((folder / "config.json").read_text())
    about |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "own.py").write_text(
        f"from pathlib import Path\nfrom transformers import BertConfig\n"
        f"Path({str(ran)!r}).touch()\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n"
    )
    monkeypatch.setitem(ladder.models, "OWN", folder)
    task = tuned(model="OWN")
    assert "own Python code" in ladder.outcome(task)["error"]
    assert not ran.exists()
    ladder.outcome({**task, "trust_remote_code": [str(folder)]})
    assert ran.exists()
