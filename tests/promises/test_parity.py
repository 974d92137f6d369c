"""Promise: each method with each objective computes what plain transformers, PEFT and torch do.

fp32 against float64, each on a path of its own: fitune's with rows end to end, kernels and the
output head on learned tokens only, in parts; the reference's (`parity_kit`, `parity_losses_kit`)
padded and whole. The losses of four steps, and the gradients of each tensor at the first and at the
last.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import parity_kit as plainly
from fitune.approaches.masked_tuner import MaskedTuner
from fitune.approaches.tuner import Subject
from fitune.config import Finetuned
from fitune.data.batches import micro_batches
from fitune.errors import ConfigError
from fitune.models.classifier import NativeClassifier, PooledClassifier
from fitune.models.pooling import Pooling
from fitune.training.attention import training_attention
from fitune.training.kernels.fused import fused_layers
from fitune.training.methods import METHODS, prepare, trainable_parameters
from fitune.training.objectives import OBJECTIVES
from fitune.training.optim import OPTIMIZERS, parameter_groups
from fitune.training.rates import rate_factors
from fitune.training.step import step
from parity_kit import FAMILIES, LABELS, Logits, Parameters
from parity_losses_kit import GIVEN, ROWS, STEPS

RATE = 0.02

VARIANTS: dict[str, dict[str, Any]] = {
    "rslora": {"rslora": True},
    "lora+": {"lora_plus": 4.0},
    "pissa": {"lora_init": "pissa"},
    "checkpointing": {"checkpointing": True},
    "padded": {"packing": False},
    "unfused": {"fused": False},
}
"""Options beside the method, for cases that are called FAMILY VARIANT."""


@dataclass(frozen=True)
class Refused:
    """What a user is told who asks for it.

    Attributes:
        by: whether the tuner of the objective says so, and not the method.
    """

    sentence: str
    by_tuner: bool = False


DECODERS = ("llama", "qwen3", "gemma3", "gpt2")
ENCODERS = ("bert", "bert-pooled", "modernbert")
WRITERS_ONLY = Refused("is for decoders")
WHOLE_MODELS = Refused("a whole model is saved", by_tuner=True)

TABLE: dict[str, dict[str, tuple[str, ...] | Refused]] = {
    "full": {
        "classify": ENCODERS,
        "sft": (*DECODERS, "llama padded", "llama unfused", "llama checkpointing"),
        "dpo": ("llama",),
        "pretrain": ("qwen3",),
        "masked": ("bert", "modernbert"),
        "seq2seq": ("t5", "bart"),
    },
    "freeze": {
        "classify": ENCODERS,
        "sft": DECODERS,
        "dpo": ("gpt2",),
        "pretrain": ("llama",),
        "masked": ("bert", "modernbert"),
        "seq2seq": ("t5",),
    },
    "head": {
        "classify": ENCODERS,
        "sft": DECODERS,
        "dpo": ("qwen3",),
        "pretrain": ("gpt2",),
        "masked": ("bert", "modernbert"),
        "seq2seq": ("bart",),
    },
    "lora": {
        "classify": (*ENCODERS, "bert rslora", "bert-pooled pissa"),
        "sft": (
            *(*DECODERS, "llama padded", "llama unfused", "llama checkpointing"),
            *("llama rslora", "qwen3 lora+", "llama pissa", "gpt2 pissa"),
        ),
        "dpo": ("llama", "gpt2"),
        "pretrain": ("gpt2",),
        "masked": WHOLE_MODELS,
        "seq2seq": ("t5", "bart"),
    },
    "dora": {
        "classify": ENCODERS,
        "sft": (*DECODERS, "llama rslora"),
        "dpo": ("qwen3",),
        "pretrain": ("llama",),
        "masked": WHOLE_MODELS,
        "seq2seq": ("t5",),
    },
    "qlora": {
        "classify": ENCODERS,
        "sft": (*DECODERS, "llama padded", "llama unfused"),
        "dpo": ("gpt2",),
        "pretrain": ("qwen3",),
        "masked": WHOLE_MODELS,
        "seq2seq": ("t5",),
    },
    "ia3": {
        "classify": ("bert", "bert-pooled"),
        "sft": ("llama", "qwen3", "gpt2"),
        "dpo": ("llama",),
        "pretrain": ("gpt2",),
        "masked": WHOLE_MODELS,
        "seq2seq": ("t5",),
    },
    "bitfit": {
        "classify": ENCODERS[:2],
        "sft": ("gpt2",),
        "dpo": ("gpt2",),
        "pretrain": ("gpt2",),
        "masked": ("bert", "modernbert"),
        "seq2seq": ("bart",),
    },
    "prompt-tuning": {
        "classify": WRITERS_ONLY,
        "sft": DECODERS,
        "dpo": ("llama",),
        "pretrain": ("gpt2",),
        "masked": WRITERS_ONLY,
        "seq2seq": WRITERS_ONLY,
    },
    "prefix-tuning": {
        "classify": WRITERS_ONLY,
        "sft": ("llama", "qwen3", "gpt2"),
        "dpo": ("gpt2",),
        "pretrain": ("llama",),
        "masked": WRITERS_ONLY,
        "seq2seq": WRITERS_ONLY,
    },
}
"""Method → objective → the families (and variants) it is compared on, or why it cannot be had."""

NOTHING = ("key.bias", "k_proj.bias")
"""Parameters whose gradient is zero by nature: what is added to all keys alike adds the same to
each of a query's scores, which a softmax does not see."""


def pairs(table: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method, objective) for method, row in table.items() for objective in row}


def cases() -> Iterator[Any]:
    for method, row in TABLE.items():
        for objective, families in row.items():
            for name in families if isinstance(families, tuple) else ():
                label = f"{method}-{objective}-{name}"
                yield pytest.param(method, objective, *name.partition(" ")[::2], id=label)


def test_every_method_and_objective_is_in_the_table() -> None:
    everything = {(method, objective) for method in METHODS for objective in OBJECTIVES}
    assert pairs(TABLE) == everything, "give what is missing a case, or the reason why it has none"
    assert plainly.METHODS.keys() == METHODS.keys(), "spell out what is new in parity_kit"
    assert GIVEN.keys() == OBJECTIVES.keys(), "spell out what is new in parity_losses_kit"
    assert all(families for row in TABLE.values() for families in row.values())


def refusals() -> Iterator[Any]:
    for method, row in TABLE.items():
        for objective, why in row.items():
            if isinstance(why, Refused):
                yield pytest.param(method, objective, why, id=f"{method}-{objective}")


@pytest.mark.parametrize(("method", "objective", "why"), list(refusals()))
def test_what_has_no_case_is_refused(method: str, objective: str, why: Refused) -> None:
    options = Finetuned(method=method)
    family = "t5" if objective == "seq2seq" else "bert"
    with pytest.raises(ConfigError, match=why.sentence):
        if why.by_tuner:
            MaskedTuner(Subject(None, None, options, None))  # type: ignore[arg-type]
        METHODS[method](plainly.build(family, plainly.MAKERS[objective]), options)


# One case: both sides


def both(
    method: str, objective: str, family: str, options: Finetuned
) -> tuple[Any, Logits, Parameters]:
    """fitune's model, and the reference's logits with the parameters that train there."""
    pooled = family.endswith("-pooled")
    base = plainly.build(family, plainly.MAKERS[objective + (", pooled" if pooled else "")])
    known = FAMILIES[family.partition("-")[0]]
    plain = copy.deepcopy(base).double()
    torch.manual_seed(1)
    wrapped = prepare(base, METHODS[method], options)
    stir(wrapped)
    held, trained = plainly.METHODS[method](plain, known, options, wrapped)
    model: Any = wrapped
    if objective != "classify":
        return model, _logits(held, objective), trained
    if not pooled:
        named = {f"model.{name}": parameter for name, parameter in trained.items()}
        return NativeClassifier(wrapped), plainly.Native(held), named
    model = PooledClassifier(wrapped, Pooling("mean", normalize=True), LABELS)
    reference = plainly.Pooled(held, copy.deepcopy(model.head).double())
    named = {f"trunk.{name}": parameter for name, parameter in trained.items()}
    named |= {f"head.{name}": p for name, p in reference.head.named_parameters()}
    return model, reference, named


def _logits(held: Any, objective: str) -> Logits:
    def logits(
        ids: torch.Tensor, mask: torch.Tensor, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        more = {} if before is None else {"decoder_input_ids": before}
        return held(input_ids=ids, attention_mask=mask, **more).logits

    return logits


@torch.no_grad()
def stir(model: Any) -> None:
    """A new adapter adds nothing, behind which much could be wrong and nothing would show."""
    for name, parameter in trainable_parameters(model).items():
        if "lora_B" in name and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
        elif "ia3" in name or "magnitude" in name:
            parameter.mul_(0.5 + torch.rand_like(parameter))


@pytest.mark.parametrize(("method", "objective", "family", "variant"), list(cases()))
def test_losses_and_gradients(method: str, objective: str, family: str, variant: str) -> None:
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    options = Finetuned(
        method=method,
        rank=4,
        alpha=12,
        dtype="fp32",
        freeze_layers=1 if method == "freeze" else None,
        virtual_tokens=3,
        **VARIANTS.get(variant, {}),
    )
    model, logits, expected = both(method, objective, family, options)
    mine = trainable_parameters(model)
    assert mine.keys() == expected.keys() and mine
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(mine[name])
    task, lengths, loss = GIVEN[objective](model, options, logits)
    factors = rate_factors(model, options)
    optimizer = OPTIMIZERS["sgd"](
        parameter_groups(
            mine,
            head=[],
            learning_rate=RATE,
            head_learning_rate=RATE,
            weight_decay=0.0,
            factors=factors,
        ),
        options,
    )
    captured: dict[str, torch.Tensor] = {}

    def capture(*given: Any) -> None:
        captured.update({n: p.grad.clone() for n, p in mine.items() if p.grad is not None})

    optimizer.register_step_pre_hook(capture)
    model.train()
    with (
        training_attention(model, longest=max(lengths), device="cpu"),
        fused_layers(model, torch.float32, wanted=options.fused),
    ):
        for index in range(STEPS):
            rows = list(range(index * ROWS, (index + 1) * ROWS))
            parts = [
                task.batch(part) for part in micro_batches(rows, lengths, 40, packed=task.packed)
            ]
            assert len(parts) > 1
            measured = step(model, task, optimizer, parts, clip=1e9, autocast=None)
            truth = loss(logits, rows)
            assert float(measured.loss) == pytest.approx(float(truth.detach()), rel=1e-5), index
            gradients = derived(truth, expected)
            if index in (0, STEPS - 1):
                compare(captured, gradients)
            with torch.no_grad():
                for name, gradient in gradients.items():
                    expected[name].sub_(gradient, alpha=RATE * factors.get(name, 1.0))


def derived(loss: torch.Tensor, parameters: Parameters) -> dict[str, torch.Tensor]:
    """Gradients, of the parameters that the loss is made of."""
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    named = zip(parameters, found, strict=True)
    return {name: gradient for name, gradient in named if gradient is not None}


def compare(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Tensor by tensor."""
    assert found.keys() == expected.keys()
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        error = (found[name].double() - gradient).norm()
        if name.endswith(NOTHING):
            assert gradient.norm() < 1e-12 * whole and error < 1e-6 * whole, name
            continue
        assert gradient.norm() > 1e-6 * whole, f"{name} has no gradient: nothing is compared"
        assert error <= 1e-4 * gradient.norm(), f"{name}: {error / gradient.norm():.1e}"
