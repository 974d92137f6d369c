"""Advice: each rule speaks where its figure is large, says it, and is silent elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from fitune.config import Finetuned
from fitune.training.advice import RULES, Facts, advise
from fitune.training.flops import Flops
from fitune.training.matrix_limit import MatrixLimit
from fitune.training.operations import KINDS, MATRIX, OPTIMIZER, OVERHEAD
from fitune.training.profile import PHASES, Profile

SOUND = Profile(
    steps=5,
    rows=16,
    micro_batches=1,
    tokens=4000,
    shared=0,
    positions=4000,
    seconds=2.0,
    phases={**dict.fromkeys(PHASES, 0.0), "forward": 0.8, "backward": 1.2},
    kinds={**dict.fromkeys(KINDS, 0.0), MATRIX: 0.9, OVERHEAD: 0.1},
    flops=Flops(10**11, 10**11, 0),
    limit=MatrixLimit(2e11, "bfloat16", (8, 8, 8)),
    steps_per_epoch=100,
    evaluation_seconds=5.0,
)
OPTIONS = Finetuned(method="lora", dtype="bf16", micro_batch_tokens=4096)


def facts(options: dict[str, Any] | None = None, **changes: Any) -> Facts:
    """Sound, but for what is given: fields of `Facts`, or of the profile."""
    about = {name: changes.pop(name) for name in ("bf16_speed", "fits_unchecked", "packed")
             if name in changes}  # fmt: skip
    return Facts(
        replace(SOUND, **changes),
        OPTIONS.model_copy(update=options or {}),
        **{"packed": True, **about},
    )


def kinds(**shares: float) -> dict[str, float]:
    names = {"overhead": OVERHEAD, "optimizer": OPTIMIZER}
    return {**SOUND.kinds, **{names[name]: share for name, share in shares.items()}}


CASES = [
    (facts({"dtype": "fp32"}, bf16_speed=3.8), "multiplies 3.8 times as fast in bf16: set dtype"),
    (facts(bf16_speed=0.25), "bf16, and this machine multiplies 4.0 times as fast in fp32"),
    (
        facts({"packing": False}, packed=False, positions=5000),
        "20% of what is computed is padding and packing is off: set packing: true",
    ),
    (facts(packed=False, positions=5000), "20% .* is padding: with a lower micro_batch_tokens"),
    (
        facts(packed=False, positions=5000, micro_batches=3),
        "20% of what is computed is padding: a larger batch_size",
    ),
    (facts({"checkpointing": True}, fits_unchecked=True), "set checkpointing: false"),
    (facts({"fused": False}), "fused is off: set fused: true"),
    (facts(kinds=kinds(overhead=0.3)), "4,000 tokens, 30% of the time .* a larger batch_size .* "
     "changes what is learned"),
    (facts(kinds=kinds(overhead=0.3), micro_batches=4), "1,000 tokens.*larger micro_batch_tokens"),
    (
        facts(tokens=100, positions=100, flops=Flops(10**9, 0, 0)),
        "100 tokens, 10% of the time .* 0% of the matrix limit is reached: a larger batch_size",
    ),
    (facts(kinds=kinds(optimizer=0.2)), r"20% .* optimizer \(adamw\).*fewer updates\.$"),
    (
        facts({"method": "full"}, kinds=kinds(optimizer=0.2)),
        "fewer updates, or lora, which updates far fewer values",
    ),
    (facts(phases={**SOUND.phases, "batch": 0.4}), "20% of the time goes to making batches"),
    (
        facts(evaluation_seconds=100.0),
        r"33% of an epoch goes to its 1 evaluation of about 100.0 s: lower data.max_rows",
    ),
    (
        facts({"evaluations_per_epoch": 4}, evaluation_seconds=100.0),
        "67% of an epoch goes to its 4 evaluations .* lower evaluations_per_epoch or data.max_rows",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("about", "sentence"), CASES)
def test_one_cause_is_one_sentence(about: Facts, sentence: str) -> None:
    (said,) = advise(about)
    assert re.search(sentence, said), said


@pytest.mark.parametrize(
    "about",
    [
        facts(),
        facts(bf16_speed=1.1),
        facts({"dtype": "fp32"}, bf16_speed=1.1),
        facts({"dtype": "fp32"}),
        facts(positions=5000),  # packed
        facts(packed=False, positions=4100),
        facts({"checkpointing": True}, fits_unchecked=False),
        facts({"checkpointing": True}),
        facts(evaluation_seconds=None),
    ],
)
def test_what_is_sound_gets_no_advice(about: Facts) -> None:
    (said,) = advise(about)
    assert said.startswith("no option stands out: the step reaches 50% of what")


def test_every_rule_has_a_case() -> None:
    spoken = {rule for rule in RULES for about, _ in CASES if rule(about)}
    assert spoken == set(RULES)
