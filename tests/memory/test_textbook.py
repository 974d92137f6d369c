"""The formulas give the figures that their sources print."""

from __future__ import annotations

import pytest

from fitune.memory.textbook import (
    STATES,
    TERMS,
    Textbook,
    activations,
    four_times,
    inference,
    layer_activation_bytes,
    mixed_precision_adam,
    training_states,
)

GB = 10**9
B = 10**9


def test_inference_of_13b_in_16_bit_is_31_2_gb() -> None:
    said = inference(13 * B, 2)
    assert said.total == pytest.approx(31.2 * GB)
    assert said.terms == {"weights": 26 * GB, "the rest": pytest.approx(5.2 * GB)}
    assert inference(8 * B, 0.5).terms["weights"] == 4 * GB


@pytest.mark.parametrize(("optimizer", "gigabytes"), [("sgd", 26), ("momentum", 52), ("adamw", 78)])
def test_gradients_and_states_of_13b_in_16_bit(optimizer: str, gigabytes: int) -> None:
    terms = training_states(13 * B, 2, STATES[optimizer]).terms
    assert terms["gradients"] + terms["optimizer states"] == gigabytes * GB
    assert terms["weights"] == 26 * GB


def test_only_what_trains_has_gradients_and_states() -> None:
    said = training_states(8 * B, 2, 2, trained=42 * 10**6)
    assert said.total == 16 * GB + 3 * 2 * 42 * 10**6
    assert training_states(8 * B, 2, 2, trained=0).total == 16 * GB


@pytest.mark.parametrize(("parameters", "gigabytes"), [(1.5, 24), (7.5, 120)])
def test_zeros_published_model_states(parameters: float, gigabytes: int) -> None:
    """Section 3.1 (GPT-2: at least 24 GB) and figure 1 (7.5B, K = 12: 120 GB)."""
    assert mixed_precision_adam(int(parameters * B)).total == gigabytes * GB


def test_four_times_is_what_the_familiar_table_prints() -> None:
    assert four_times(25_705_635_840).total / 2**30 == pytest.approx(95.76, abs=0.01)


@pytest.mark.parametrize(
    ("heads", "hidden", "coefficient"),
    [(96, 12288, 80), (128, 20480, 64)],  # GPT-3 and MT-NLG, section 5
)
def test_published_share_of_attention_scores(heads: int, hidden: int, coefficient: int) -> None:
    sizes = {"seq": 2048, "batch": 1, "hidden": hidden, "heads": heads}
    unit = 2048 * hidden
    assert layer_activation_bytes(**sizes) == (34 + coefficient) * unit
    assert layer_activation_bytes(**sizes, recompute="selective") == 34 * unit
    assert layer_activation_bytes(**sizes, recompute="full") == 2 * unit


def test_selective_recompute_saves_70_percent_of_gpt3s_activations() -> None:
    """Section 5: 70 % for GPT-3, 65 % for MT-NLG."""
    for heads, hidden, saved in ((96, 12288, 0.70), (128, 20480, 0.65)):
        sizes = {"seq": 2048, "batch": 1, "hidden": hidden, "heads": heads}
        kept = layer_activation_bytes(**sizes, recompute="selective")
        assert 1 - kept / layer_activation_bytes(**sizes) == pytest.approx(saved, abs=0.006)


def test_output_terms_are_the_papers_4sbh_times_1_plus_v_over_h() -> None:
    s, b, h, v = 2048, 2, 4096, 50304
    said = activations(layers=0, seq=s, batch=b, hidden=h, heads=32, vocabulary=v)
    assert said.total == pytest.approx(4 * s * b * h * (1 + v / h))
    assert said.terms["logits and loss"] == 4 * s * b * v


def test_an_explanation_adds_states_and_activations_term_by_term() -> None:
    states = training_states(10, 2, 2)
    kept = activations(layers=2, seq=3, batch=1, hidden=4, heads=2, vocabulary=5, recompute="full")
    both = states.plus(kept)
    assert list(both.terms) == [name for name in TERMS if name != "the rest"]
    assert both.total == states.total + kept.total
    assert states.formula in both.formula and kept.source in both.source
    assert states.plus(states).terms["weights"] == 40


def test_every_formula_names_its_source_and_known_terms() -> None:
    every = [
        inference(7, 2),
        training_states(7, 4, 1),
        mixed_precision_adam(7),
        four_times(28),
        activations(layers=1, seq=2, batch=3, hidden=4, heads=2, vocabulary=9),
    ]
    for said in every:
        assert isinstance(said, Textbook) and said.formula and said.source
        assert set(said.terms) <= set(TERMS) and all(
            isinstance(size, int) for size in said.terms.values()
        )
