"""`fitune doctor`: what this machine has, what is missing, how to get it.

Parses, calls `api.doctor`, prints.
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from fitune.cli.parser import Parser
from fitune.cli.screen import Screen
from fitune.ladder.figures import size

if TYPE_CHECKING:
    from fitune.hardware import Machine


def add_arguments(parser: Parser) -> None:
    parser.add_output()


def run(args: Namespace) -> int:
    from fitune import api

    screen = Screen(args)
    result = api.doctor()
    if screen.json:
        screen.result(result.to_json())
        return 0
    screen.pairs("Machine", machine_lines(result.machine))
    screen.pairs("Versions", result.versions)
    screen.pairs(
        "Extras",
        {
            extra.name: "installed" if extra.installed else f"missing: {extra.command}"
            for extra in result.extras
        },
    )
    screen.pairs(
        "Models without a network",
        {
            model.name: str(model.path) if model.path else f"missing: {model.command}"
            for model in result.models
        },
    )
    return 0


def machine_lines(machine: Machine) -> dict[str, str]:
    """What a machine has, in words."""
    bf16 = "bf16 in hardware" if machine.native_bf16 else "no bf16 in hardware: fp32 is faster"
    lines = {
        "system": machine.system,
        "processor": f"{machine.cpu}, {machine.cores} cores usable, {bf16}",
        "memory": f"{size(machine.memory_available)} available of {size(machine.memory_total)}",
        "disk": f"{size(machine.disk_free)} free here",
    }
    for number, gpu in enumerate(machine.gpus or ()):
        lines[f"GPU {number}"] = (
            f"{gpu.name}, {size(gpu.memory_free)} free of {size(gpu.memory_total)}, "
            f"capability {gpu.capability[0]}.{gpu.capability[1]}, "
            + ("bf16 in hardware" if gpu.native_bf16 else "no bf16 in hardware")
        )
    if not machine.gpus:
        lines["GPU"] = "none that torch can use"
    return lines
