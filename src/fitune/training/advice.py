"""What would make training steps faster, by rules over what was measured.

Knows profiles and options; measures nothing. A rule speaks only where its figure is large enough to
be worth a change, and says the figure. To add one, write a function and a line in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fitune.config import Finetuned
from fitune.training.operations import OPTIMIZER, OVERHEAD
from fitune.training.precision import FROZEN_BASE
from fitune.training.profile import Profile


@dataclass(frozen=True)
class Facts:
    """What rules are asked about.

    Attributes:
        profile: measured.
        options: of the training, every one with its value.
        packed: whether rows are laid end to end.
        bf16_speed: how many times as fast as in fp32 this machine multiplies in bf16; None where
            it was not measured.
        fits_unchecked: whether the step would fit without checkpointing; None where nobody knows.
    """

    profile: Profile
    options: Finetuned
    packed: bool
    bf16_speed: float | None = None
    fits_unchecked: bool | None = None


def advise(facts: Facts) -> tuple[str, ...]:
    """A sentence for each rule that has something to say, or one that says there is nothing."""
    said = tuple(sentence for rule in RULES if (sentence := rule(facts)))
    return said or (
        f"no option stands out: the step reaches {facts.profile.utilisation:.0%} of what this "
        "machine's matrix products do. What is left is to compute less: shorter rows, fewer "
        "epochs, a smaller model.",
    )


def dtype(facts: Facts) -> str | None:
    speed = facts.bf16_speed
    if facts.options.dtype == "fp32" and speed and speed > 1.2:
        return (
            f"dtype is fp32, and this machine multiplies {speed:.1f} times as fast in bf16: set "
            "dtype: bf16 (what trains stays in fp32)."
        )
    if facts.options.dtype != "fp32" and speed and speed < 0.8:
        return (
            f"dtype is {facts.options.dtype}, and this machine multiplies {1 / speed:.1f} times as "
            "fast in fp32: set dtype: fp32."
        )
    return None


def padding(facts: Facts) -> str | None:
    share = facts.profile.padding
    if facts.packed or share < 0.1:
        return None
    what = f"{share:.0%} of what is computed is padding"
    if not facts.options.packing:
        return f"{what} and packing is off: set packing: true, which decoders of most families can."
    if facts.profile.micro_batches < 1.5 and facts.profile.rows > 8:
        return (
            f"{what}: with a lower micro_batch_tokens (now {facts.options.micro_batch_tokens:,}), "
            "rows of more equal length share a forward pass."
        )
    return f"{what}: a larger batch_size lets rows of more equal length share a forward pass."


def checkpointing(facts: Facts) -> str | None:
    if not facts.options.checkpointing or not facts.fits_unchecked:
        return None
    return (
        "checkpointing computes layers a second time, and by the estimate the step fits into "
        "memory without: set checkpointing: false, which saves up to a fourth of the step."
    )


def fused(facts: Facts) -> str | None:
    if facts.options.fused:
        return None
    return (
        "fused is off: set fused: true, so that norms, gated layers and the head's loss are "
        "computed by kernels that move less memory."
    )


def small_batches(facts: Facts) -> str | None:
    profile = facts.profile
    overhead = profile.kinds[OVERHEAD]
    tokens = profile.positions / profile.micro_batches
    idle = profile.utilisation < 0.25 and tokens < 512
    if overhead < 0.25 and not idle:
        return None
    option = "micro_batch_tokens" if profile.micro_batches > 1.5 else "batch_size"
    return (
        f"a forward pass has {tokens:,.0f} tokens, {overhead:.0%} of the time goes to Python and "
        f"the calls of small operations, and {profile.utilisation:.0%} of the matrix limit is "
        f"reached: a larger {option} gives each operation more to do"
        + (", and changes what is learned." if option == "batch_size" else ".")
    )


def optimizer(facts: Facts) -> str | None:
    share = facts.profile.kinds[OPTIMIZER]
    if share < 0.15:
        return None
    fewer = (
        "" if facts.options.method in FROZEN_BASE else ", or lora, which updates far fewer values"
    )
    return (
        f"{share:.0%} of the time goes to the optimizer ({facts.options.optimizer}), which takes "
        f"as long for a small batch: a larger batch_size means fewer updates{fewer}."
    )


def batches(facts: Facts) -> str | None:
    share = facts.profile.phases["batch"] / facts.profile.seconds
    if share < 0.1:
        return None
    return f"{share:.0%} of the time goes to making batches: larger ones take less time a row."


def evaluation(facts: Facts) -> str | None:
    profile, per_epoch = facts.profile, facts.options.evaluations_per_epoch
    if profile.evaluation_seconds is None:
        return None
    evaluating = per_epoch * profile.evaluation_seconds
    share = evaluating / (evaluating + profile.steps_per_epoch * profile.seconds)
    if share < 0.2:
        return None
    less = "evaluations_per_epoch or " if per_epoch > 1 else ""
    return (
        f"{share:.0%} of an epoch goes to its {per_epoch} evaluation{'s' if per_epoch > 1 else ''} "
        f"of about {profile.evaluation_seconds:.1f} s: lower {less}data.max_rows.validation."
    )


RULES: tuple[Callable[[Facts], str | None], ...] = (
    dtype,
    padding,
    checkpointing,
    fused,
    small_batches,
    optimizer,
    batches,
    evaluation,
)
