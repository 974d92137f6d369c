"""`fitune.estimate`: the contract of its result, and what it is put together from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import fitune
from fitune import fitting
from fitune.devices import find_device
from fitune.errors import ConfigError, ModelError, ResourceError
from fitune.estimates import EstimateResult, FittingModels
from fitune.memory.estimate import estimate_training
from fitune.memory.headroom import live_bytes
from fitune.memory.inference import estimate_inference
from fitune.memory.measure import allocator_peak
from fitune.memory.options import Inference
from fitune.memory.plan import Way
from fitune.models.bundled import bundled_models
from fitune.questions import Question
from memory_kit import family, measured, training

KEYS = {
    *("model", "parameters", "trainable_parameters", "peak_bytes", "terms", "peak_at"),
    *("timeline", "training", "inference", "fits", "seconds", "measured_peak_bytes"),
}
"""Of the JSON, which is promised to be stable; docs/estimate.md lists all."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders that hold nothing but a config.json."""
    made = {}
    for name in ("llama", "bert", "t5"):
        folder = tmp_path_factory.mktemp(name)
        family(name).to_json_file(folder / "config.json", use_diff=False)
        made[name] = str(folder)
    return made


@pytest.fixture
def llama(folders: dict[str, str]) -> str:
    return folders["llama"]


SMALL: dict[str, Any] = {"method": "full", "dtype": "fp32", "batch": 2, "seq": 48}


def asked(model: str, **options: Any) -> EstimateResult:
    result = fitune.estimate(model, **options)
    assert isinstance(result, EstimateResult)
    return result


# -- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [SMALL, {"inference": True, "context": 32}, {"seq": 16}])
def test_the_json_keeps_its_contract(llama: str, options: dict[str, Any]) -> None:
    result = asked(llama, **options)
    record = json.loads(json.dumps(result.to_json()))
    assert set(record) >= KEYS
    assert sum(record["terms"].values()) == record["peak_bytes"]
    assert set(record["peak_at"]) == {"phase", "operation", "module"}
    assert record["peak_bytes"] == max(moment["bytes"] for moment in record["timeline"])
    assert all(sum(m["terms"].values()) == m["bytes"] for m in record["timeline"])
    assert max(record["phases"].values()) == record["peak_bytes"]
    assert (record["training"] is None) != (record["inference"] is None)
    assert record["fits"] is True
    assert record["measured_peak_bytes"] is None
    assert 0 < record["seconds"] < 60


def test_the_guide_lists_every_key(llama: str) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "estimate.md").read_text("utf-8")
    table = guide[guide.index("## The JSON") :]
    for key in asked(llama, **SMALL).to_json():
        assert f"`{key}`" in table, key


def test_it_is_the_estimate_of_the_memory_room(llama: str) -> None:
    config = family("llama")
    result = asked(llama, **SMALL)
    assert result.estimate == estimate_training(config, training())
    assert result.estimate.parameters == result.estimate.trainable
    lora = asked(llama, method="lora", dtype="bf16", batch=2, seq=48)
    expected = estimate_training(config, training(method="lora", dtype="bf16"))
    assert lora.peak_bytes == expected.peak_bytes
    # What adapters add is no parameter of the model.
    assert lora.estimate.parameters == result.estimate.parameters
    answering = asked(llama, inference=True, context=32, requests=3, dtype="fp32")
    assert answering.peak_bytes == (
        estimate_inference(config, Inference(3, 32, dtype="fp32")).peak_bytes
    )


def test_the_echo_is_what_was_meant(llama: str) -> None:
    echo = asked(llama, **SMALL, optimizer="sgd", padded=True, checkpointing=True).training
    assert echo is not None
    for name, value in {**SMALL, "optimizer": "sgd", "padded": True}.items():
        assert echo[name] == value
    assert echo["checkpointing"] is True and echo["micro_batches"] == 1


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_other_kinds(folders: dict[str, str], name: str) -> None:
    result = asked(folders[name], batch=2, seq=16)
    assert result.training is not None and result.training["method"] == "full"
    assert result.peak_bytes > 4 * result.estimate.parameters


def test_all_layers_and_a_few_agree(llama: str) -> None:
    few, every = (asked(llama, **SMALL, exact=exact) for exact in (False, True))
    assert few.peak_bytes == pytest.approx(every.peak_bytes, rel=1e-3)
    assert (few.training or {})["exact"] is False


def test_many_micro_batches_are_as_two(llama: str) -> None:
    two, many = (asked(llama, **SMALL, micro_batches=n) for n in (2, 5000))
    assert two.peak_bytes == many.peak_bytes
    assert (many.training or {})["micro_batches"] == 5000


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"ema": 0.999}, {"ema": 0.999}),
        ({"neftune": 5.0}, {"neftune": 5.0}),
        ({"checkpointing": 3, "batch": 6}, {"checkpointing": 3}),
        ({"method": "lora", "lora_init": "pissa", "rank": 8}, {"lora_init": "pissa", "rank": 8}),
        ({"method": "prompt-tuning", "virtual_tokens": 40}, {"virtual_tokens": 40}),
        ({"method": "prefix-tuning", "virtual_tokens": 40}, {"virtual_tokens": 40}),
    ],
    ids=str,
)
def test_options_of_a_task_file_change_the_bytes_as_they_do_in_training(
    llama: str, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    given = {**SMALL, **options}
    result = asked(llama, **given)
    way = {"method": given["method"], "batch": given["batch"], **fields}
    assert result.peak_bytes == pytest.approx(measured(family("llama"), training(**way)), rel=0.01)
    plain = {name: value for name, value in given.items() if name in {*SMALL, "rank"}}
    assert result.peak_bytes != asked(llama, **plain).peak_bytes
    assert result.training is not None
    assert {name: result.training[name] for name in fields} == fields


def test_the_plan_keeps_to_every_nth_layer(llama: str) -> None:
    plan = asked(llama, budget="200MiB", seq=64, checkpointing=2).plan
    assert plan is not None
    assert {cell.way.checkpointing for cell in plan.cells} == {2}


def test_no_option_by_that_name(llama: str) -> None:
    with pytest.raises(TypeError):
        fitune.estimate(llama, metod="lora")


# -- budgets -----------------------------------------------------------------------------------


def test_it_fits_up_to_the_budget(llama: str) -> None:
    peak = asked(llama, **SMALL).peak_bytes
    assert asked(llama, **SMALL, budget=peak).fits
    assert not asked(llama, **SMALL, budget=peak - 1).fits
    record = asked(llama, **SMALL, budget="1GiB").to_json()
    assert record["budget"] == {"bytes": 2**30, "of": "the budget", "given": True}
    assert asked(llama, **SMALL).budget.given is False


def test_the_plan_fills_the_budget(llama: str) -> None:
    """Its recommendation fits, and a row more would not."""
    budget = 110 << 20
    result = asked(llama, budget=budget, seq=64, dtype="fp32", checkpointing=False)
    plan, how = result.plan, result.training
    assert plan is not None and how is not None
    assert plan.tensor_bytes == live_bytes(budget, "cpu", dtype="fp32")
    assert {(cell.way.method, cell.seq) for cell in plan.cells} == {
        ("full", 64),
        ("lora", 64),
        ("qlora", 64),
    }
    best = plan.recommended
    assert (how["method"], how["seq"], how["batch"]) == (best.way.method, 64, best.rows)
    assert result.fits and result.peak_bytes <= plan.tensor_bytes
    more = asked(llama, method=best.way.method, seq=64, dtype="fp32", batch=best.rows + 1)
    assert more.peak_bytes > plan.tensor_bytes


def test_nothing_fits(llama: str) -> None:
    with pytest.raises(ResourceError, match=r"nothing fits: the smallest need .* is .* MiB") as e:
        fitune.estimate(llama, budget="1KiB", seq=16, checkpointing=False)
    assert "smaller model" in e.value.fix


def test_which_models_of_the_catalogue_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"distilbert/distilgpt2", "openai-community/gpt2", "EleutherAI/pythia-70m"}
    few = tuple(model for model in bundled_models() if model.id in wanted)
    monkeypatch.setattr("fitune.memory.plan.bundled_models", lambda: few)
    result = fitune.estimate(None, budget="2GiB", method="qlora", seq=64)
    assert isinstance(result, FittingModels)
    assert [model.model for model in result.models] == sorted(
        wanted, key=lambda name: -next(m.parameters for m in few if m.id == name)
    )
    assert all(model.peak_bytes <= result.tensor_bytes for model in result.models)
    assert result.training["method"] == "qlora"
    json.dumps(result.to_json())
    # gpt2 reads 1,024 tokens.
    result = fitune.estimate(None, budget="2GiB", method="qlora", seq=1500)
    assert isinstance(result, FittingModels)
    assert [model.model for model in result.models] == ["EleutherAI/pythia-70m"]


def test_no_model_of_the_catalogue_fits() -> None:
    with pytest.raises(ResourceError, match="no model of the catalogue fits"):
        fitune.estimate(None, budget="1MiB")
    assert fitting.SHORT == 512


# -- devices -----------------------------------------------------------------------------------


def test_a_gpu_is_a_process_and_a_time(llama: str) -> None:
    result = asked(llama, **SMALL, device="A100 SXM 80GB", price=2.0)
    assert result.cuda is not None and result.needed_bytes == result.cuda.total
    assert result.budget.bytes == find_device("A100 SXM 80GB").usable_bytes
    (step,) = result.times
    assert step.cost is not None and step.seconds > 0
    record = result.to_json()
    assert record["cuda"]["live"] < record["cuda"]["total"]
    assert record["cuda"]["uncertainty"]["reserved"] > 0
    assert "not measured" in record["times"][0]["label"]


def test_a_gpu_keeps_other_tensors_than_a_cpu(llama: str) -> None:
    """Under CUDA's autocast, norms are computed in fp32."""
    options = {**SMALL, "dtype": "bf16"}
    assert asked(llama, **options).peak_bytes != (
        asked(llama, **options, device="A100 SXM 80GB").peak_bytes
    )


def test_without_a_known_device_there_is_no_price(llama: str) -> None:
    with pytest.raises(ConfigError, match="--price is 2"):
        fitune.estimate(llama, **SMALL, price=2.0)


def test_a_plan_for_a_gpu_fits_the_whole_process(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the allocator loses more than the plan set aside, rows are taken back."""
    import fitune.estimating as estimating

    real = estimating.cuda_process

    def wasteful(*args: Any, **options: Any) -> Any:
        process = real(*args, **options)
        return replace(process, reserved=2 * process.reserved)

    monkeypatch.setattr(estimating, "WAYS", (Way("full", checkpointing=False),))
    budget = 900 << 20  # little enough that rows are what fills it
    options = {"device": "A100 SXM 80GB", "budget": budget, "seq": 64}
    plain = asked(llama, **options)
    monkeypatch.setattr(estimating, "cuda_process", wasteful)
    careful = asked(llama, **options)
    assert plain.plan is not None and careful.plan is not None
    assert careful.plan.recommended.rows < plain.plan.recommended.rows
    assert careful.fits and plain.fits
    assert (careful.training or {})["batch"] == careful.plan.recommended.rows


def test_several_devices(llama: str) -> None:
    alone = asked(llama, **SMALL)
    result = asked(llama, **SMALL, devices=4, shard="fsdp")
    assert sum(result.terms.values()) == result.peak_bytes < alone.peak_bytes
    echo = result.training or {}
    assert (echo["devices"], echo["shard"], echo["offload"]) == (4, "fsdp", False)
    away = asked(llama, **SMALL, devices=4, shard="deepspeed-zero3", offload=True)
    assert set(away.host_bytes) == {"weights", "gradients", "optimizer states"}


# -- what is done where it is asked for ----------------------------------------------------------


def test_measuring(llama: str) -> None:
    result = asked(llama, **SMALL, measure=True)
    record = result.to_json()
    truth = measured(family("llama"), training())
    assert record["measured_peak_bytes"] == pytest.approx(truth, rel=0.002)
    assert record["peak_bytes"] == pytest.approx(truth, rel=0.005)
    assert set(record["measured_terms"]) == set(record["terms"])
    assert allocator_peak(lambda: torch.zeros(1000)) == 4000


def test_measuring_is_refused_where_there_is_no_room(llama: str) -> None:
    with pytest.raises(ResourceError, match=r"measuring takes .* and this machine has"):
        fitune.estimate(llama, **{**SMALL, "batch": 2**20}, measure=True)


def test_explaining_and_the_familiar_table(llama: str) -> None:
    result = asked(llama, batch=1, seq=16, method="lora", explain=True, dtypes=True)
    record = json.loads(json.dumps(result.to_json()))
    assert [row["dtype"] for row in record["dtypes"]] == ["float32", "float16", "int8", "int4"]
    assert [row["dtype"] for row in record["true_dtypes"]][:3] == ["float32", "float16", "int8"]
    told = record["explanation"]
    assert sum(told["traced"].values()) == record["peak_bytes"]
    assert told["formulas"][0]["total"] == sum(told["formulas"][0]["terms"].values())
    assert told["reasons"] and told["weights"]
    answering = asked(llama, inference=True, context=16, explain=True)
    assert answering.explanation is not None and len(answering.explanation.formulas) == 1


@pytest.mark.parametrize("ending", [".svg", ".html"])
def test_a_picture(llama: str, tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / f"a{ending}"
    result = asked(llama, **SMALL, plot=path)
    assert result.plot == path
    assert "<svg" in path.read_text("utf-8") and llama in path.read_text("utf-8")


# -- models ------------------------------------------------------------------------------------


def test_weights_without_a_config(tmp_path: Path, llama: str) -> None:
    save_file({"w": torch.zeros(100, 50)}, tmp_path / "m.safetensors")
    path = str(tmp_path / "m.safetensors")
    result = asked(path, dtype="fp32", optimizer="momentum")
    assert result.terms == {
        "weights": 20_000,
        "gradients": 20_000,
        "optimizer states": 20_000,
    }
    assert "activations" in result.notes[0]
    assert asked(path, inference=True, dtype="bf16").terms == {"weights": 10_000}
    for options in ({"method": "lora"}, {"batch": 3}, {"explain": True}, {"devices": 2}):
        with pytest.raises(ModelError, match="takes more than the shapes"):
            fitune.estimate(path, **options)
    asked(path, method="full")


def test_a_config_whose_parts_do_not_fit_together(tmp_path: Path) -> None:
    config = family("llama")
    config.num_key_value_heads = 3
    config.to_json_file(tmp_path / "config.json", use_diff=False)
    for options in (SMALL, {"inference": True, "context": 8}):
        with pytest.raises(ModelError, match="cannot be run as its config says") as caught:
            fitune.estimate(str(tmp_path), **options)
        assert "\n" not in str(caught.value)


def test_a_fault_of_ours_is_not_blamed_on_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    import fitune.estimating as estimating

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(estimating, "estimate_training", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        fitune.estimate("openai-community/gpt2", method="full", batch=1, seq=8)


def test_every_option_of_the_question_is_an_option_of_the_verb() -> None:
    from fitune.cli.estimate import OPTIONS

    assert {*OPTIONS, "model"} == set(vars(Question()))
