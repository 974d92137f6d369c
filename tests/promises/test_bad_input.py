"""Promise: a broken input ends in one clear sentence and exit code 2, and leaves no half-written
run. Every case goes through the command line, as a user's would; what breaks later, in the middle
of a run, is in `test_whole_runs`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Case = tuple[str, Callable[[Any], list[str]], tuple[str, ...]]
"""(what is broken, how to build it and call fitune, what the sentence must contain)."""

TASK_FILES: list[Case] = [
    ("missing-task-file", lambda b: ["ladder", "tsk.yaml"], ("tsk.yaml",)),
    (
        "near-task-file",
        lambda b: [*b.task()[:1], str(b.folder / "tsk.yaml")],
        ("did you mean", "task.yaml"),
    ),
    ("folder-as-task-file", lambda b: ["ladder", str(b.folder)], ("is a folder",)),
    ("task-file-is-a-list", lambda b: b.text("- kind: classify\n"), ("a list", "kind: classify")),
    ("task-file-is-empty", lambda b: b.text(""), ("is empty",)),
    ("task-file-with-tabs", lambda b: b.text("kind: classify\ndata:\n\ttrain: a\n"), ("line 3",)),
    ("task-file-not-utf8", lambda b: b.text(b"kind: classify\nname: caf\xe9\n"), ("line 2", "UTF")),
    (
        "duplicate-yaml-keys",
        lambda b: b.text("kind: classify\nseed: 1\nseed: 2\ndata: {train: rows.csv}\n"),
        ("'seed'", "twice", "lines 2 and 3"),
    ),
    ("unclosed-bracket", lambda b: b.text("kind: [classify\n"), ("line",)),
    ("two-documents", lambda b: b.text("kind: classify\n---\nkind: generate\n"), ("second doc",)),
    ("python-object", lambda b: b.text("kind: !!python/object/apply:os.getcwd []\n"), ("line 1",)),
    ("unknown-field", lambda b: b.task(sed=1), ("'sed'", "did you mean 'seed'")),
    ("unknown-kind", lambda b: b.task(kind="classfy"), ("classfy", "'classify'")),
    ("no-data", lambda b: b.text("kind: classify\n"), ("'data' is missing",)),
    (
        "unknown-option",
        lambda b: b.task(b.tuned(lerning_rate=1)),
        ("lerning_rate", "learning_rate"),
    ),
    ("negative-rank", lambda b: b.task(b.tuned(rank=-4)), ("rank", "-4", "above 0")),
    ("zero-epochs", lambda b: b.task(b.tuned(epochs=0)), ("epochs", "0", "above 0")),
    ("zero-rate", lambda b: b.task(b.tuned(learning_rate=0)), ("learning_rate", "above 0")),
    ("endless-rate", lambda b: b.task(b.tuned(learning_rate=float("inf"))), ("learning_rate",)),
    ("switch-as-number", lambda b: b.task(b.tuned(rank=True)), ("rank", "true")),
    ("name-with-slash", lambda b: b.task(name="a/b"), ("name", "a/b")),
    ("instruction-is-a-number", lambda b: b.task(instruction=5), ("instruction", "5", "quotes")),
    (
        "not-even-one-approach-name",
        lambda b: b.task({"model": "minilm-l6"}),
        ("approaches.0", "use:"),
    ),
    ("set-without-equals", lambda b: [*b.task(), "--set", "seed"], ("'seed'", "field=value")),
    ("set-unknown-path", lambda b: [*b.task(), "--set", "data.trian=x"], ("trian", "train")),
    ("set-no-such-approach", lambda b: [*b.task(), "--set", "approaches.3.rank=2"], ("'3'", "0")),
    ("set-bad-type", lambda b: [*b.task(), "--set", "seed=many"], ("seed", "many", "--set")),
    ("set-bad-yaml", lambda b: [*b.task(), "--set", "seed=[1"], ("seed=[1",)),
    ("unknown-verb", lambda b: ["lader", "task.yaml"], ("'lader'", "ladder")),
    ("unknown-switch", lambda b: [*b.task(), "--resum", "x"], ("--resum", "--resume")),
]

NAMES: list[Case] = [
    ("unknown-approach", lambda b: b.task({"use": "majorty"}), ("majorty", "majority")),
    ("unknown-method", lambda b: b.task(b.tuned(method="lorra")), ("lorra", "'lora'")),
    ("unknown-optimizer", lambda b: b.task(b.tuned(optimizer="adam")), ("'adam'", "adamw")),
    ("unknown-metric", lambda b: b.task(metric="acuracy"), ("acuracy", "accuracy")),
    ("metric-of-other-kind", lambda b: b.task(metric="rouge_l"), ("rouge_l", "classify")),
    (
        "doubled-name",
        lambda b: b.task({"use": "majority", "name": "x"}, {"use": "linear", "name": "x"}),
        ("two approaches are called 'x'",),
    ),
    (
        "plug-in-missing-module",
        lambda b: b.task({"use": "no_such_module:Guess"}),
        ("no_such_module:Guess", "import no_such_module"),
    ),
    (
        "plug-in-that-raises",
        lambda b: (b.write("raising_plug.py", "1 / 0\n"), b.task({"use": "raising_plug:Guess"}))[1],
        ("ZeroDivisionError",),
    ),
    (
        "plug-in-that-exits",
        lambda b: (
            b.write("leaving_plug.py", "raise SystemExit(0)\n"),
            b.task({"use": "leaving_plug:Guess"}),
        )[1],
        ("SystemExit",),
    ),
    (
        "plug-in-missing-attribute",
        lambda b: b.task(metric="json:lods"),
        ("'lods'", "'loads'"),
    ),
    ("plug-in-not-callable", lambda b: b.task({"use": "os:sep"}), ("os:sep", "'/'")),
    (
        "plug-in-with-other-constructor",
        lambda b: b.task({"use": "fractions:Fraction"}),
        ("fractions:Fraction", "constructor"),
    ),
    (
        "plug-in-without-methods",
        lambda b: (
            b.write(
                "half_plug.py",
                "class Half:\n    def __init__(self, options, work): pass\n"
                "    def fit(self, train, validation): pass\n",
            ),
            b.task({"use": "half_plug:Half"}),
        )[1],
        ("half_plug:Half", "lacks cost, load, options, predict, save"),
    ),
    (
        "metric-that-raises",
        lambda b: (
            b.write("bad_metric.py", "def score(p, r):\n    return p[0] + 1\n"),
            b.task(metric="bad_metric:score"),
        )[1],
        ("bad_metric:score", "TypeError"),
    ),
    (
        "metric-that-is-no-number",
        lambda b: (
            b.write("text_metric.py", "def score(p, r):\n    return 'good'\n"),
            b.task(metric="text_metric:score"),
        )[1],
        ("text_metric:score", "'good'"),
    ),
    (
        "linear-for-generate",
        lambda b: b.task({"use": "linear"}, kind="generate"),
        ("'linear'", "generate"),
    ),
    ("majority-with-a-model", lambda b: b.task({"use": "majority", "model": "x"}), ("'model'",)),
    ("linear-negative-c", lambda b: b.task({"use": "linear", "regularization": -1}), ("-1",)),
    ("no-gpu", lambda b: b.task(device="cuda"), ("cuda", "device: auto")),
    ("tune-without-finetuned", lambda b: ["tune", b.task()[1]], ("use: finetuned",)),
    (
        "tune-which-one",
        lambda b: ["tune", b.task(b.tuned(name="a"), b.tuned(name="b"))[1]],
        ("a, b", "--rung"),
    ),
    (
        "tune-no-such-rung",
        lambda b: ["tune", b.task(b.tuned(name="a"))[1], "--rung", "z"],
        ("'z'", "a"),
    ),
]

MODELS: list[Case] = [
    ("unknown-model", lambda b: b.task(b.tuned() | {"model": "minilm-16"}), ("minilm-16", "-l6")),
    (
        "hub-id-offline",
        lambda b: b.task(b.tuned() | {"model": "nobody/nothing"}),
        ("nobody/nothing", "download: true"),
    ),
    (
        "folder-without-config",
        lambda b: b.task(
            b.tuned() | {"model": b.model("encoder", lambda m: (m / "config.json").unlink())}
        ),
        ("config.json",),
    ),
    (
        "folder-without-safetensors",
        lambda b: b.task(
            b.tuned() | {"model": b.model("encoder", lambda m: (m / "model.safetensors").unlink())}
        ),
        (".safetensors", "save_pretrained"),
    ),
    (
        "broken-config",
        lambda b: b.task(
            b.tuned() | {"model": b.model("encoder", lambda m: (m / "config.json").write_text("{"))}
        ),
        ("broken-encoder",),
    ),
    (
        "unknown-model-type",
        lambda b: b.task(
            b.tuned()
            | {"model": b.model("encoder", lambda m: edit(m / "config.json", model_type="bort"))}
        ),
        ("bort",),
    ),
    (
        "impossible-sizes",
        lambda b: b.task(
            b.tuned()
            | {"model": b.model("encoder", lambda m: edit(m / "config.json", hidden_size="big"))}
        ),
        ("broken-encoder",),
    ),
    (
        "broken-tokenizer",
        lambda b: b.task(
            b.tuned()
            | {"model": b.model("encoder", lambda m: (m / "tokenizer.json").write_text("{}"))}
        ),
        ("broken-encoder",),
    ),
    (
        "broken-pooling",
        lambda b: b.task(
            b.tuned()
            | {"model": b.model("encoder", lambda m: (m / "modules.json").write_text("[{}]"))}
        ),
        ("modules.json",),
    ),
    (
        "not-gguf",
        lambda b: b.task(
            {"use": "prompt", "model": str(b.write("models/small.gguf", b"GGML not this one"))}
        ),
        ("small.gguf", "GGUF"),
    ),
    (
        "cut-off-gguf",
        lambda b: b.task(
            {"use": "prompt", "model": str(b.write("models/cut.gguf", b"GGUF\x03\x00\x00\x00"))}
        ),
        ("cut.gguf",),
    ),
    (
        "file-as-model",
        lambda b: b.task(b.tuned() | {"model": str(b.write("models/model.bin", b"x"))}),
        ("model.bin", "not GGUF"),
    ),
    (
        "encoder-for-prompt",
        lambda b: b.task({"use": "prompt", "model": str(b.models["encoder"])}),
        ("prompt", "encoder", "decoder"),
    ),
    (
        "encoder-for-few-shot",
        lambda b: b.task({"use": "few-shot", "model": str(b.models["encoder"])}),
        ("few-shot", "encoder", "decoder"),
    ),
    (
        "encoder-for-generate",
        lambda b: b.task(b.tuned(), kind="generate"),
        ("encoder", "generate", "decoder"),
    ),
    (
        "encoder-decoder",
        lambda b: b.task(b.tuned() | {"model": b.model("encoder", _as_t5)}),
        ("encoder-decoder", "t5"),
    ),
    (
        "max-length-above-context",
        lambda b: b.task(b.tuned(max_length=5000)),
        ("5,000", "128"),
    ),
    (
        "prompt-max-length-above-context",
        lambda b: b.task({"use": "prompt", "model": str(b.models["decoder"]), "max_length": 5000}),
        ("5,000", "256"),
    ),
    (
        "freeze-layers-without-freeze",
        lambda b: b.task(b.tuned(freeze_layers=1)),
        ("freeze_layers", "method: freeze"),
    ),
    (
        "freeze-without-layers",
        lambda b: b.task(b.tuned(method="freeze")),
        ("freeze_layers", "2"),
    ),
    (
        "freeze-too-many-layers",
        lambda b: b.task(b.tuned(method="freeze", freeze_layers=9)),
        ("9", "2"),
    ),
    (
        "rslora-without-lora",
        lambda b: b.task(b.tuned(rslora=True)),
        ("rslora is true", "method: lora"),
    ),
    (
        "pissa-of-too-high-a-rank",
        lambda b: b.task(b.tuned("decoder", method="lora", lora_init="pissa", rank=40)),
        ("rank is 40", "singular values"),
    ),
    (
        "bitfit-without-biases",
        lambda b: b.task(b.tuned("decoder", method="bitfit")),
        ("'bitfit'", "biases", "ia3"),
    ),
    (
        "prompt-tuning-of-an-encoder",
        lambda b: b.task(b.tuned(method="prompt-tuning")),
        ("'prompt-tuning' is for decoders", "smollm2-135m"),
    ),
    (
        "prefix-tuning-checkpointed",
        lambda b: b.task(b.tuned("decoder", method="prefix-tuning", checkpointing=2)),
        ("prefix-tuning", "checkpointing: false"),
    ),
    (
        "more-virtual-tokens-than-context",
        lambda b: b.task(b.tuned("decoder", method="prompt-tuning", virtual_tokens=999)),
        ("virtual_tokens is 999", "256"),
    ),
    (
        "layer-decay-without-layers",
        lambda b: b.task(b.tuned(method="head", layer_decay=0.5)),
        ("layer_decay is 0.5", "'head'"),
    ),
    (
        "class-weights-of-a-decoder",
        lambda b: b.task(b.tuned("decoder", class_weights="balanced")),
        ("class_weights", "an encoder"),
    ),
    (
        "class-weights-of-an-unknown-label",
        lambda b: b.task(b.tuned(class_weights={"lost_crad": 2})),
        ("'lost_crad'", "did you mean 'lost_card'"),
    ),
    (
        "adapter-missing",
        lambda b: b.task(b.tuned("decoder", adapter="gone/adapter")),
        ("gone/adapter", "adapter_config.json"),
    ),
    (
        "chat-template-missing",
        lambda b: b.task(b.tuned("base"), chat_template="chat.jinja"),
        ("chat.jinja",),
    ),
    (
        "chat-template-not-jinja",
        lambda b: (
            b.write("chat.jinja", "{% for m in messages %}"),
            b.task(b.tuned("base"), chat_template="chat.jinja"),
        )[1],
        ("chat.jinja",),
    ),
    (
        "chat-template-that-raises",
        lambda b: (
            b.write("chat.jinja", "{{ raise_exception('never') }}"),
            b.task(b.tuned("base"), chat_template="chat.jinja"),
        )[1],
        ("chat.jinja", "never"),
    ),
    (
        "chat-template-that-fails",
        lambda b: (
            b.write("chat.jinja", "{{ messages[0].content + 1 }}"),
            b.task(b.tuned("base"), chat_template="chat.jinja"),
        )[1],
        ("chat.jinja",),
    ),
    (
        "chat-template-without-answers",
        lambda b: (
            b.write("chat.jinja", "{% for m in messages %}{{ m.role }}: hm {% endfor %}"),
            b.task(b.tuned("base"), chat_template="chat.jinja"),
        )[1],
        ("chat.jinja", "chat_template: default"),
    ),
    (
        "show-unknown-model",
        lambda b: ["check", b.task()[1], "--show", "1", "--model", "nothing"],
        ("nothing",),
    ),
]

DATA: list[Case] = [
    ("missing-data", lambda b: b.task(data={"train": "row.csv"}), ("row.csv", "rows.csv")),
    ("missing-test", lambda b: b.task(data={"test": "tset.csv"}), ("tset.csv",)),
    ("wrong-column", lambda b: b.task(data={"input": "txt"}), ("'txt'", "text")),
    ("wrong-answer-column", lambda b: b.task(data={"output": "lable"}), ("'lable'", "label")),
    ("nameless-columns", lambda b: b.rows("d.csv", "q1,q2\na,b\nc,d\n"), ("q1, q2", "data.input")),
    ("same-column-twice", lambda b: b.task(data={"input": "text", "output": "text"}), ("'text'",)),
    ("empty-label", lambda b: b.rows("d.csv", b.content + "a card,\n"), ("d.csv:42", "'label'")),
    ("empty-text", lambda b: b.rows("d.csv", b.content + ",lost_card\n"), ("d.csv:42", "'text'")),
    (
        "one-class",
        lambda b: b.rows("d.csv", "text,label\n" + "".join(f"t{i},yes\n" for i in range(30))),
        ("'yes'", "two labels"),
    ),
    (
        "unseen-label-in-test",
        lambda b: (
            b.write("test.csv", "text,label\nnew words,gone\n"),
            b.task(data={"test": "test.csv"}),
        )[1],
        ("'gone'", "test.csv:2"),
    ),
    (
        "not-utf8",
        lambda b: b.rows("d.csv", b.content.encode() + "café,lost_card\n".encode("latin-1")),
        ("d.csv:42", "0xe9", "data.encoding: cp1252"),
    ),
    ("unknown-encoding", lambda b: b.task(data={"encoding": "utf8000"}), ("utf8000", "utf-8")),
    ("binary-encoding", lambda b: b.task(data={"encoding": "zlib"}), ("zlib",)),
    ("nul-bytes", lambda b: b.rows("d.csv", b.content + "a\0b,x\n"), ("d.csv:42", "NUL")),
    ("ragged-csv", lambda b: b.rows("d.csv", b.content + "a,b,c\n"), ("d.csv:42", "3 fields")),
    ("open-quote", lambda b: b.rows("d.csv", b.content + '"a,b\n'), ("d.csv:42", "never closed")),
    ("doubled-column", lambda b: b.rows("d.csv", "text,text\na,b\n"), ("'text' twice",)),
    ("header-only", lambda b: b.rows("d.csv", "text,label\n"), ("d.csv", "no rows")),
    ("empty-file", lambda b: b.rows("d.csv", ""), ("d.csv", "empty")),
    ("unknown-ending", lambda b: b.rows("d.xlsx", b.content), (".xlsx", "data.format")),
    (
        "folder-without-data",
        lambda b: ((b.folder / "nothing").mkdir(), b.task(data={"train": "nothing"}))[1],
        ("nothing", "no data files"),
    ),
    ("broken-parquet", lambda b: b.rows("d.parquet", b"PAR1 is no table"), ("d.parquet",)),
    ("broken-gzip", lambda b: b.rows("d.csv.gz", b.content), ("d.csv.gz", "gzip")),
    (
        "broken-jsonl-line",
        lambda b: b.rows("d.jsonl", '{"text": "a", "label": "b"}\n{"text": \n'),
        ("d.jsonl:2",),
    ),
    (
        "duplicate-json-keys",
        lambda b: b.rows("d.jsonl", '{"text": "a", "text": "b", "label": "c"}\n'),
        ("d.jsonl:1", "'text' appears twice"),
    ),
    ("json-without-rows", lambda b: b.rows("d.json", '{"a": 1}'), ("d.json", "list")),
    (
        "json-number-as-text",
        lambda b: b.rows("d.jsonl", '{"text": 5, "label": "a"}'),
        ("d.jsonl:1",),
    ),
    (
        "unknown-role",
        lambda b: b.rows(
            "d.jsonl", json.dumps({"messages": [{"role": "narrator", "content": "a"}]})
        ),
        ("d.jsonl:1", "'narrator'", "assistant"),
    ),
    (
        "no-answer-in-messages",
        lambda b: b.rows("d.jsonl", json.dumps({"messages": [{"role": "user", "content": "a"}]})),
        ("d.jsonl:1", "assistant"),
    ),
    ("wrong-shape", lambda b: b.task(data={"shape": "alpaca"}), ("'instruction'",)),
    ("unknown-sample", lambda b: b.task(data={"train": "sample:pydoc"}), ("pydocs",)),
    (
        "sample-with-columns",
        lambda b: b.task(data={"train": "sample:pydocs", "input": "x"}),
        ("sample:pydocs",),
    ),
    ("hub-data-offline", lambda b: b.task(data={"train": "hub:a/b"}), ("hub:a/b", "download")),
    ("not-a-saved-dataset", lambda b: b.task(data={"format": "dataset"}), ("save_to_disk",)),
    ("no-test-rows", lambda b: b.task(data={"test_fraction": 0}), ("no test rows",)),
    ("no-validation-rows", lambda b: b.task(data={"validation_fraction": 0}), ("validation",)),
    (
        "too-few-rows",
        lambda b: b.rows("d.csv", "text,label\na,x\nb,y\n"),
        ("2 labels", "different rows"),
    ),
    ("cap-below-labels", lambda b: b.task(data={"max_rows": {"train": 1}}), ("1", "2 labels")),
    ("check-missing-data", lambda b: ["check", "row.csv"], ("row.csv", "rows.csv")),
    ("check-kind-twice", lambda b: ["check", b.task()[1], "--kind", "generate"], ("--kind",)),
    (
        "check-bad-override",
        lambda b: ["check", str(b.folder / "rows.csv"), "--set", "data.inptu=x"],
        ("inptu", "input"),
    ),
]

PAIRS = "prompt,chosen,rejected\n" + "".join(f"a {i},b {i},{{}}\n" for i in range(12))


def prefers(b: Any, rejected: str, base: str = "decoder", **options: Any) -> list[str]:
    """A task that learns a preference from pairs whose rejected answers are all the same."""
    b.write("pairs.csv", PAIRS.format(*[rejected] * 12))
    tuned = b.tuned(base, objective="dpo", max_length=64, **options)
    return b.task(tuned, kind="generate", data={"train": "pairs.csv"})


def reads(b: Any, text: str, base: str = "decoder", **options: Any) -> list[str]:
    """A task that goes on learning from a text."""
    b.write("corpus.txt", text)
    return b.task(b.tuned(base, **options), kind="language-model", data={"train": "corpus.txt"})


BOOK = "\n\n".join(f"Paragraph {i}, which says little." for i in range(60))

OBJECTIVES: list[Case] = [
    ("unknown-objective", lambda b: b.task(b.tuned(objective="dop")), ("'dop'", "'dpo'")),
    (
        "no-rejected-answer",
        lambda b: prefers(b, ""),
        ("pairs.csv:2: the answer in 'rejected' is empty", "11 more rows"),
    ),
    (
        "no-pairs-at-all",
        lambda b: b.task(
            b.tuned("decoder", objective="dpo"), kind="generate", data={"output": "label"}
        ),
        ("rows have no rejected answer", "rows.csv:", "objective: sft"),
    ),
    (
        "equal-answers",
        lambda b: (
            b.write("pairs.csv", PAIRS.format(*[f"b {i}" for i in range(12)])),
            b.task(
                b.tuned("decoder", objective="dpo"), kind="generate", data={"train": "pairs.csv"}
            ),
        )[1],
        ("equal to the chosen one", "pairs.csv:", "remove"),
    ),
    ("dpo-of-an-encoder", lambda b: prefers(b, "c", "encoder"), ("is an encoder", "decoder")),
    ("beta-of-another-objective", lambda b: b.task(b.tuned(dpo_beta=0.2)), ("dpo_beta is 0.2",)),
    (
        "half-of-the-pairs-wrong",
        lambda b: prefers(b, "c", label_smoothing=0.5),
        ("label_smoothing is 0.5", "below 0.5"),
    ),
    ("empty-corpus", lambda b: reads(b, " \n"), ("corpus.txt is empty",)),
    (
        "corpus-shorter-than-a-row",
        lambda b: reads(b, "\n\n".join(f"{i} {'z ' * 80}" for i in range(3)), max_length=250),
        ("fewer than one row of max_length 250", "lower max_length"),
    ),
    ("corpus-of-one-word", lambda b: reads(b, "word"), ("rows are left", "more")),
    (
        "masked-decoder",
        lambda b: reads(b, BOOK, objective="masked"),
        ("objective 'masked'", "is a decoder", "pretrain"),
    ),
    (
        "causal-encoder",
        lambda b: reads(b, BOOK, "encoder", objective="pretrain"),
        ("objective 'pretrain'", "is an encoder", "masked"),
    ),
    (
        "adapter-of-a-masked-model",
        lambda b: reads(b, BOOK, "encoder", method="lora"),
        ("'lora' does not go with objective 'masked'", "full, freeze"),
    ),
    (
        "prompts-without-questions",
        lambda b: (
            b.write("corpus.txt", BOOK),
            b.task({"use": "prompt"}, kind="language-model", data={"train": "corpus.txt"}),
        )[1],
        ("approach 'prompt' answers rows", "finetuned"),
    ),
    (
        "rows-as-documents",
        lambda b: b.task(b.tuned("decoder"), kind="language-model", data={"shape": "alpaca"}),
        ("data.shape is alpaca", "sections"),
    ),
    (
        "documents-as-rows",
        lambda b: b.task(data={"shape": "sections"}),
        ("data.shape sections is for kind language-model",),
    ),
]

RUNS: list[Case] = [
    ("resume-nothing", lambda b: ["ladder", "--resume", "runs/none-1"], ("runs/none-1",)),
    ("resume-no-run", lambda b: ["ladder", "--resume", str(b.folder)], ("task.json",)),
    (
        "resume-other-task",
        lambda b: [*_with(b.run(), lambda run: [*b.task({"use": "linear"}), "--resume", str(run)])],
        ("differs",),
    ),
    (
        "resume-with-set",
        lambda b: ["ladder", "--resume", str(b.run()), "--set", "seed=1"],
        ("--set",),
    ),
    (
        "resume-changed-data",
        lambda b: _with(
            b.fresh_run(),
            lambda run: (
                b.write("rows.csv", b.content.replace("card number 3", "card number 333")),
                ["ladder", "--resume", str(run)],
            )[1],
        ),
        ("rows changed",),
    ),
    ("resume-by-other-verb", lambda b: ["tune", "--resume", str(b.run())], ("fitune ladder",)),
    (
        "evaluate-wrong-column",
        lambda b: ["evaluate", str(b.run()), str(b.write("new.csv", "words,label\na,lost_card\n"))],
        ("words",),
    ),
    (
        "evaluate-no-answers",
        lambda b: ["evaluate", str(b.run()), str(b.write("new.csv", "text\na\n"))],
        ("label",),
    ),
    (
        "evaluate-unseen-label",
        lambda b: [
            "evaluate",
            str(b.run()),
            str(b.write("new.csv", "text,label\na,lost_card\nb,stolen\n")),
        ],
        ("'stolen'", "new.csv:3"),
    ),
    (
        "evaluate-empty",
        lambda b: ["evaluate", str(b.run()), str(b.write("new.csv", "text,label\n"))],
        ("no rows",),
    ),
    (
        "evaluate-unknown-rung",
        lambda b: ["evaluate", str(b.run()), "rows.csv", "--rung", "liner"],
        ("'liner'", "linear, majority"),
    ),
    (
        "evaluate-unfinished",
        lambda b: _with(
            b.run(),
            lambda run: (
                edit(run / "ladder.json", recommendation=None),
                ["evaluate", str(run), "rows.csv"],
            )[1],
        ),
        ("not finished", "--resume"),
    ),
    (
        "evaluate-output-in-a-file",
        lambda b: ["evaluate", str(b.run()), "rows.csv", "--output", "rows.csv/answers.jsonl"],
        ("rows.csv",),
    ),
    *[
        (
            f"damaged-{name.replace('/', '-')}",
            lambda b, name=name, content=content, words=words: _with(
                b.run(),
                lambda run: (
                    (run / name).write_text(content),
                    [word.replace("RUN", str(run)) for word in words],
                )[1],
            ),
            (name.rpartition("/")[2].partition(".")[0],),
        )
        for name, content, words in [
            ("task.json", "{", ["evaluate", "RUN", "rows.csv"]),
            ("task.json", "[]", ["ladder", "--resume", "RUN"]),
            ("data.json", "{}", ["evaluate", "RUN", "rows.csv"]),
            ("data.json", "{}", ["ladder", "--resume", "RUN"]),
            ("verb.json", "{}", ["ladder", "--resume", "RUN"]),
            ("ladder.json", '{"recommendation": 3}', ["evaluate", "RUN", "rows.csv"]),
            ("rungs/linear/rung.json", "{}", ["ladder", "--resume", "RUN"]),
            ("rungs/linear/rung.json", "{}", ["evaluate", "RUN", "rows.csv", "--rung", "linear"]),
            ("rungs/linear/predictions.jsonl", "[]\n{}\n", ["ladder", "--resume", "RUN"]),
        ]
    ],
    *[
        (
            f"damaged-model-{name}",
            lambda b, name=name, content=content: _with(
                b.run(),
                lambda run: (
                    (run / "rungs/linear/model" / name).write_bytes(content),
                    ["evaluate", str(run), "rows.csv", "--rung", "linear"],
                )[1],
            ),
            ("linear",),
        )
        for name, content in [("linear.json", b"{}"), ("linear.safetensors", b"\0" * 40)]
    ],
]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _with(run: Path, words: Callable[[Path], list[str]]) -> list[str]:
    """Words built after a run was made; the bench remembers its folder."""
    return words(run)


def _as_t5(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]})
    )


EVERY = [*TASK_FILES, *NAMES, *MODELS, *DATA, *OBJECTIVES, *RUNS]


def test_there_are_many_cases() -> None:
    assert len(EVERY) >= 100


@pytest.mark.parametrize(
    ("build", "said"), [case[1:] for case in EVERY], ids=[case[0] for case in EVERY]
)
def test_one_sentence(bench: Any, refused: Any, build: Any, said: tuple[str, ...]) -> None:
    words = build(bench)
    before = bench.kept()
    told = refused(words)
    for fragment in said:
        assert fragment in told, told
    assert bench.kept() == before, "no run is made or touched"
