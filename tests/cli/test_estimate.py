"""`fitune estimate`: what it hands to `api`, what it prints, and that a mistake is one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import fitune
from fitune.cli import main
from fitune.cli.estimate import OPTIONS
from fitune.cli.estimate_view import (
    BAR,
    bar,
    compared,
    grouped,
    operation_name,
    peak_sentence,
    percent,
    phases_line,
    place,
)
from fitune.estimates import Budget, EstimateResult, FittingModel, FittingModels, Plan
from fitune.memory.estimate import Estimate, Moment, PeakAt
from fitune.memory.explain import Explanation
from fitune.memory.familiar import FamiliarRow
from fitune.memory.plan import Cell, Way
from fitune.memory.process import CudaProcess
from fitune.memory.roofline import Efficiency, Roofline
from fitune.memory.textbook import Textbook
from fitune.memory.trial import Trial
from fitune.memory.truth import TrueRow
from fitune.questions import Question

GIB = 2**30
TERMS = {
    "weights": 15 * GIB,
    "activations: LlamaMLP": 3 * GIB,
    "activations: LlamaAttention": GIB,
    "logits and loss": GIB // 2,
    "batch": 1024,
}
ESTIMATE = Estimate(
    parameters=8_030_261_248,
    trainable=41_943_040,
    peak_bytes=sum(TERMS.values()),
    terms=TERMS,
    peak_at=PeakAt("backward", "aten._log_softmax_backward_data.default", ""),
    phases={"update": 15 * GIB, "forward": 18 * GIB, "backward": sum(TERMS.values())},
    timeline=(Moment(1, "backward", " -1", sum(TERMS.values()), TERMS),),
)
HOW = {
    "method": "lora",
    "rank": 16,
    "freeze_layers": None,
    "objective": "sft",
    "optimizer": "adamw",
    "dtype": "bf16",
    "batch": 4,
    "seq": 1024,
    "micro_batches": 2,
    "shared_prefix": 0,
    "checkpointing": True,
    "lora_init": "zero",
    "virtual_tokens": 20,
    "ema": None,
    "neftune": None,
    "padded": True,
    "devices": 1,
    "shard": None,
    "offload": False,
}
FULL, LORA = Way("full", checkpointing=False), Way("lora", checkpointing=True)
CELLS = (Cell(FULL, 512, 0, 120 * GIB), Cell(LORA, 512, 17, 20 * GIB))
CUDA = CudaProcess(
    live=20 * GIB,
    allocated=20 * GIB,
    reserved=21 * GIB,
    workspace=64 << 20,
    outside={"context": 400 << 20},
    exact=False,
)


def result(**changes: Any) -> EstimateResult:
    settings: dict[str, Any] = {
        "model": "llama-3.1-8b",
        "origin": "the bundled catalogue",
        "estimate": ESTIMATE,
        "training": HOW,
        "inference": None,
        "budget": Budget(24 * GIB, "the budget", True),
        "needed_bytes": ESTIMATE.peak_bytes,
        "host_bytes": {},
        "cuda": None,
        "times": (),
        "plan": None,
        "dtypes": (),
        "true_dtypes": (),
        "explanation": None,
        "measured": None,
        "notes": (),
        "plot": None,
        "seconds": 1.2,
    }
    return EstimateResult(**{**settings, **changes})


EVERYTHING = result(
    cuda=CUDA,
    host_bytes={"weights": 3 * GIB},
    times=(Roofline("training step", 1.5, 10, 10, "compute", Efficiency(), "RTX 4090", 0.0002),),
    plan=Plan(CELLS, CELLS[1], 22 * GIB),
    dtypes=(
        FamiliarRow("float32", 453_001_216, 15_284_318_208, 61_137_272_832),
        FamiliarRow("int8", 113_250_304, 3_821_079_552, None),
    ),
    true_dtypes=(
        TrueRow("float32", 15 * GIB, 16 * GIB, 62 * GIB, "full, fp32"),
        TrueRow("int8", 4 * GIB, 5 * GIB, None, None),
    ),
    explanation=Explanation(
        formulas=(Textbook("parameters × bytes", "a book", {"weights": 16 * GIB}),),
        traced={"weights": 15 * GIB, "activations": 4 * GIB, "gradients": 0},
        reasons=("Weights take 15 GiB, not 16 GiB: because.",),
        weights={"parameters × 2 bytes": 26_031_728_640},
    ),
    measured=Trial(ESTIMATE.peak_bytes + 10**6, {**TERMS, "temporaries": 5}, 3.0),
    notes=("A note.",),
    plot=Path("a.svg"),
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In the place of `api`."""
    kept = SimpleNamespace(answer=result(), asked=[])

    def estimate(*args: Any, on: Any = None, **options: Any) -> Any:
        kept.asked.append((args, options))
        Question(*args, **options)  # every option is one of the question's
        return kept.answer

    module = ModuleType("fitune.api")
    module.estimate = estimate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fitune.api", module)
    monkeypatch.setattr(fitune, "api", module, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return kept


def test_every_option_reaches_the_verb(calls: SimpleNamespace, capsys: Any) -> None:
    words = ["--method", "lora", "--rank", "4", "--target-modules", "q_proj,v_proj"]
    words += ["--objective", "dpo"]
    words += ["--optimizer", "sgd", "--dtype", "bf16", "--batch", "2", "--seq", "64", "--padded"]
    words += ["--micro-batches", "3", "--answer-tokens", "5", "--labels", "7", "--no-checkpointing"]
    words += ["--attention", "eager", "--devices", "4", "--shard", "fsdp", "--offload"]
    words += ["--budget", "24GiB", "--device", "4090", "--price", "0.5", "--exact", "--dtypes"]
    words += ["--explain", "--plot", "a.svg"]
    words += ["--lora-init", "pissa", "--ema", "0.99", "--neftune", "5"]
    words += ["--segments", "2", "--shared-prefix", "9"]
    assert main(["estimate", "gpt2", *words]) == 0
    ((args, options),) = calls.asked
    assert args == ("gpt2",)
    assert set(options) == set(OPTIONS)
    expected = {
        "method": "lora",
        "objective": "dpo",
        "rank": 4,
        "target_modules": "q_proj,v_proj",
        "optimizer": "sgd",
        "dtype": "bf16",
        "batch": 2,
        "seq": 64,
        "padded": True,
        "segments": 2,
        "shared_prefix": 9,
        "micro_batches": 3,
        "answer_tokens": 5,
        "labels": 7,
        "checkpointing": False,
        "attention": "eager",
        "devices": 4,
        "shard": "fsdp",
        "offload": True,
        "budget": "24GiB",
        "device": "4090",
        "price": 0.5,
        "exact": True,
        "dtypes": True,
        "explain": True,
        "plot": "a.svg",
        "lora_init": "pissa",
        "ema": 0.99,
        "neftune": 5.0,
    }
    assert {name: options[name] for name in expected} == expected
    assert not options["measure"] and not options["inference"]
    answering = ["--inference", "--context", "9", "--prompt", "3", "--requests", "2"]
    main(["estimate", "gpt2", *answering, "--kv-dtype", "int8"])
    chosen = calls.asked[1][1]
    assert [chosen[n] for n in ("inference", "context", "prompt", "requests", "kv_dtype")] == [
        True, 9, 3, 2, "int8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--checkpointing"], {"checkpointing": True}),
        (["--checkpoint-every", "3"], {"checkpointing": 3}),
        (
            ["--method", "prompt-tuning", "--virtual-tokens", "7"],
            {"method": "prompt-tuning", "virtual_tokens": 7},
        ),
    ],
)
def test_words_that_do_not_go_with_others(
    calls: SimpleNamespace, words: list[str], wanted: dict[str, Any]
) -> None:
    assert main(["estimate", "gpt2", *words]) == 0
    ((_, options),) = calls.asked
    assert {name: options[name] for name in wanted} == wanted


def test_accumulation_is_another_word(calls: SimpleNamespace) -> None:
    main(["estimate", "gpt2", "--accumulation", "8"])
    assert calls.asked[0][1]["micro_batches"] == 8


def test_json_alone_is_on_stdout(calls: SimpleNamespace, capsys: Any) -> None:
    calls.answer = EVERYTHING
    assert main(["estimate", "gpt2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["peak_bytes"] == sum(record["terms"].values())
    assert record["measured_peak_bytes"] == ESTIMATE.peak_bytes + 10**6
    assert record["plan"]["recommended"]["rows"] == 17


@pytest.mark.parametrize("width", [80, 160])
def test_what_is_printed(
    calls: SimpleNamespace, capsys: Any, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    calls.answer = EVERYTHING
    main(["estimate", "llama-3.1-8b"])
    out = capsys.readouterr().out
    for words in (
        "llama-3.1-8b: 8.03 G parameters, 41.9 M train (0.52%)",
        "lora of rank 16, adamw, bf16, 4 rows of 1,024 tokens, 2 micro-batches a step",
        "checkpointing, padded",
        "15.0 GiB",
        "76.9 %",
        "  LlamaMLP",
        "The peak is in the backward pass when _log_softmax_backward_data allocates",
        "By phase: forward 18.0 GiB, backward",
        "On the host, for each device: weights 3.00 GiB",
        "estimated and not measured",
        "Fits into the budget of 24.0 GiB",
        "Training step: about 1.5 s, costs 0.0002, bound by compute (roofline, not measured",
        "→ 17",
        "needs 120 GiB",
        "--method lora --checkpointing --seq 512 --batch 17",
        "432.02 MB",
        "14.23 GB",
        "56.94 GB",
        "a book",
        "because",
        "26.03 GB",
        "Predicted, and measured",
        "A note.",
        "picture: a.svg",
    ):
        assert words in out
    # Tables stay within the screen; sentences are wrapped by a terminal only.
    tables = [line for line in out.splitlines() if "  " in line.strip() or "──" in line]
    assert max(map(len, (t.rstrip() for t in tables if not t.startswith("  fitune")))) <= width
    assert ("the model's own values" in out) == (width == 160)


def test_it_does_not_fit(calls: SimpleNamespace, capsys: Any) -> None:
    calls.answer = result(budget=Budget(10 * GIB, "RTX 3080", True))
    assert main(["estimate", "llama-3.1-8b"]) == 0
    assert "Does not fit into 10.0 GiB of RTX 3080: it takes 9.50 GiB more" in (
        capsys.readouterr().out
    )


def test_a_tight_fit_says_what_comes_beside_tensors(calls: SimpleNamespace, capsys: Any) -> None:
    calls.answer = result(budget=Budget(ESTIMATE.peak_bytes + 10**6, "this machine", False))
    main(["estimate", "llama-3.1-8b"])
    out = capsys.readouterr().out
    assert "that this machine has free" in out and "allocators and libraries" in out


def test_models_that_fit(calls: SimpleNamespace, capsys: Any) -> None:
    models = (
        FittingModel("a/large", 7_000_000_000, 20 * GIB, "MIT"),
        FittingModel("b/small", 1_000_000, GIB, None),
    )
    calls.answer = FittingModels(
        models, HOW, Budget(24 * GIB, "the budget", True), 22 * GIB, (), 1.0
    )
    assert main(["estimate", "--budget", "24GiB", "--method", "lora"]) == 0
    out = capsys.readouterr().out
    assert out.index("a/large") < out.index("b/small")
    assert "fit into the budget of 24.0 GiB, largest first" in out
    main(["estimate", "--budget", "24GiB", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert [model["model"] for model in record["models"]] == ["a/large", "b/small"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpt2", "--batch", "-3"], "'-3' is not a whole number above 0"),
        (["gpt2", "--price", "dear"], "invalid float value"),
        (["gpt2", "--method", "lorra"], "did you mean lora"),
        (["gpt2", "--inference", "--method", "lora"], "--method is for training"),
        (["gpt2", "--budged", "1GiB"], "did you mean '--budget'"),
        (["gpt2", "llama"], "one argument too many"),
        (["--explain"], "no model is named"),
    ],
)
def test_mistakes(calls: SimpleNamespace, capsys: Any, words: list[str], said: str) -> None:
    assert main(["estimate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpt2", "--budget", "much"], "not an amount of memory"),
        (["gpt2", "--device", "RTX 9999"], "did you mean 'RTX"),
        (["lama-2-13b"], "did you mean meta-llama/Llama-2-13b-hf"),
        (["nobody/nothing"], "HF_HUB_OFFLINE"),
        (["gpt2", "--seq", "5000"], "more than the 1,024 tokens"),
    ],
)
def test_mistakes_that_the_verb_itself_finds(capsys: Any, words: list[str], said: str) -> None:
    assert main(["estimate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err
    assert len(captured.err.splitlines()) == 1


def test_help_loads_nothing_heavy(capsys: Any) -> None:
    import subprocess

    code = (
        "from fitune.cli import main; main(['estimate', '--help']); import sys;"
        "print({'torch', 'transformers', 'pydantic', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() in ("set()", "{'rich'}")
    assert "--kv-dtype" in done.stdout


# -- parts -------------------------------------------------------------------------------------


def test_parts_of_a_group_stand_below_it() -> None:
    lines = list(grouped({"weights": 5, "activations: A": 3, "activations: B": 4, "x: C": 1}))
    assert lines == [
        ("activations", 7, False),
        ("B", 4, True),
        ("A", 3, True),
        ("weights", 5, False),
        ("x", 1, False),
    ]


@pytest.mark.parametrize("eighths", range(BAR * 8 + 1))
def test_a_bar_is_as_long_as_its_share(eighths: int) -> None:
    text = bar(eighths / (BAR * 8))
    assert text.count("█") == eighths // 8
    assert len(text) == -(-eighths // 8)


def test_small_things_are_said_plainly() -> None:
    assert percent(0) == "0.0 %" and percent(0.0001) == "<0.1 %" and percent(0.5) == "50.0 %"
    assert operation_name("aten.mm.default") == "mm" and operation_name("") == ""
    assert compared(110, 100) == ("110 B", "100 B", "+10.00%")
    assert compared(90, 100)[2] == "−10.00%" and compared(9, 0)[2] == "–"
    assert place(Budget(GIB, "RTX 4090", True)) == "1.00 GiB of RTX 4090"
    assert phases_line({"update": GIB, "forward": GIB}).startswith("forward")
    at = PeakAt("prefill", "aten.mul.Tensor", "model.layers.1.mlp")
    sentence = peak_sentence(result(estimate=Estimate(1, 0, 1, {"weights": 1}, at, {}, ())))
    assert sentence == (
        "The peak is while the prompts are read when mul allocates in model.layers.1.mlp."
    )
