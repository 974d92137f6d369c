"""Which objectives fit a task and a model, and which tuner knows each.

Knows names only; tuners are imported when used.
"""

from __future__ import annotations

from fitune.config import Finetuned
from fitune.errors import ConfigError, ModelError

FITTING: dict[tuple[str, str], tuple[str, ...]] = {
    ("classify", "encoder"): ("classify",),
    ("classify", "decoder"): ("sft",),
    ("generate", "decoder"): ("sft", "dpo"),
    ("language-model", "decoder"): ("pretrain",),
    ("language-model", "encoder"): ("masked",),
}
"""(kind of task, kind of model) → objectives, the usual one first."""

TUNERS: dict[str, str] = {
    "classify": "fitune.approaches.encoder_tuner:EncoderTuner",
    "sft": "fitune.approaches.decoder_tuner:DecoderTuner",
    "dpo": "fitune.approaches.preference_tuner:PreferenceTuner",
    "pretrain": "fitune.approaches.document_tuner:DocumentTuner",
    "masked": "fitune.approaches.masked_tuner:MaskedTuner",
}
"""Objective → where its tuner is."""


def with_objective(options: Finetuned, *, task: str, kind: str, model: str) -> Finetuned:
    """`options` with their objective named.

    Args:
        task: the kind of task.
        kind: of the model, ``"encoder"`` or ``"decoder"``.
        model: its name.

    Raises:
        ModelError: such a model cannot be tuned for such a task.
        ConfigError: the objective is for other tasks or models, or an option for another objective.
    """
    fitting = FITTING.get((task, kind), ())
    if not fitting:
        kinds = " or ".join(
            f"an {k}" if k == "encoder" else f"a {k}" for t, k in FITTING if t == task
        )
        raise ModelError(
            f"'{model}' is an {kind}, which cannot be fine-tuned for kind '{task}'",
            fix=f"use {kinds}, e.g. smollm2-135m",
        )
    chosen = options.objective or fitting[0]
    if chosen not in fitting:
        raise ConfigError(
            f"objective '{chosen}' is not for '{model}', which is "
            f"{'an' if kind == 'encoder' else 'a'} {kind}, and kind '{task}'",
            fix=f"set objective: {' or '.join(fitting)}, or another kind or model",
        )
    if options.dpo_beta is not None and chosen != "dpo":
        raise ConfigError(
            f"dpo_beta is {options.dpo_beta:g}, but the objective is '{chosen}'",
            fix="set objective: dpo, or remove dpo_beta",
        )
    return options.model_copy(update={"objective": chosen})
