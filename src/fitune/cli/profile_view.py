"""A profile of training steps, as text.

Knows results and the screen; measures nothing.
"""

from __future__ import annotations

from fitune.cli.screen import Screen
from fitune.results import ProfileResult
from fitune.training.profile import PHASES, Profile

PHASE_NAMES = {
    "batch": "making batches",
    "forward": "forward",
    "backward": "backward",
    "clip": "clipping gradients",
    "optimizer": "optimizer",
    "other": "other",
}


def show(screen: Screen, result: ProfileResult) -> None:
    """Print speed, where the time goes, how much of the machine is used, and advice."""
    from fitune.ladder.figures import duration, number

    measured, options = result.profile, result.options
    how = f"{options['method']}, {options['optimizer']}, {options['dtype']}"
    screen.say()
    screen.say(f"{result.rung}: {result.model}, {how}, on {result.device}", style="bold")
    screen.say(
        f"{number(measured.tokens_per_second)} tokens/s: {duration(measured.seconds)} a step of "
        f"{_count(measured.rows)} rows and {number(measured.tokens)} tokens in "
        f"{_count(measured.micro_batches)} micro-batch"
        f"{'es' if measured.micro_batches != 1 else ''}; {measured.padding:.0%} padding, "
        f"{measured.shared / measured.tokens:.0%} computed once for several rows"
    )
    screen.say()
    spent = measured.phases
    screen.pairs(
        f"A step's time (mean of {measured.steps})",
        {
            PHASE_NAMES[name]: f"{duration(spent[name]):>8}  {_share(spent[name], measured)}"
            for name in PHASES
        },
    )
    by_share = sorted(measured.kinds.items(), key=lambda pair: -pair[1])
    screen.pairs("By kind of operation", {kind: f"{share:>5.1%}" for kind, share in by_share})
    screen.pairs("Of the machine", _machine(measured))
    screen.say("What would make it faster", style="bold")
    for sentence in measured.advice:
        screen.say(f"• {sentence[:1].upper()}{sentence[1:]}")


def _machine(measured: Profile) -> dict[str, str]:
    from fitune.ladder.figures import number

    flops, limit = measured.flops, measured.limit
    shape = "×".join(map(str, limit.shape))
    return {
        "a step needs": f"{number(flops.total)}FLOP: forward {number(flops.forward)}, gradients "
        f"of what layers read {number(flops.backward_inputs)}, of weights "
        f"{number(flops.backward_weights)}",
        "it does": f"{number(flops.total / measured.seconds)}FLOP/s",
        "the limit": f"{number(limit.flops_per_second)}FLOP/s, measured: {limit.dtype} products of "
        f"{shape}",
        "utilisation": f"{measured.utilisation:.0%} (model FLOP utilisation against that limit)",
    }


def _share(seconds: float, measured: Profile) -> str:
    return f"{seconds / measured.seconds:>5.1%}"


def _count(mean: float) -> str:
    return f"{mean:.0f}" if mean == round(mean) else f"{mean:.1f}"
