"""What `doctor` reports and runs record: versions, extras, offline models.

Knows installed packages; knows nothing of terminals.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from typing import Any

from fitune.hardware import this_machine
from fitune.models.catalogue import PACKAGED
from fitune.models.source import packaged_file
from fitune.results import DoctorResult, Extra, OfflineModel

_SHOWN = ("fitune", "torch", "transformers", "peft", "safetensors", "scikit-learn")


def versions() -> dict[str, str]:
    """Python's and the main libraries' versions."""
    found = {"python": sys.version.split()[0]}
    for name in _SHOWN:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def environment() -> dict[str, Any]:
    """Versions and hardware as JSON, for the run folder."""
    import torch

    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "machine": this_machine(load_torch=True).to_json(),
    }


def processor(device: str) -> str:
    """What computes, in words: ``"2 threads on AMD EPYC"``, or the GPU's name."""
    import torch

    machine = this_machine(load_torch=True)
    if device == "cuda" and machine.gpus:
        return machine.gpus[0].name
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''} on {machine.cpu}"


def extras() -> tuple[Extra, ...]:
    """Every extra that fitune's own metadata declares, and whether all its packages are there."""
    metadata = importlib.metadata.metadata("fitune")
    requirements = importlib.metadata.requires("fitune") or []
    result = []
    for extra in metadata.get_all("Provides-Extra") or []:
        names = [
            re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]
            for requirement in requirements
            if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", requirement)
        ]
        result.append(Extra(extra, all(map(_installed, names)), f"pip install 'fitune[{extra}]'"))
    return tuple(result)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def diagnose() -> DoctorResult:
    """What this machine has, what is missing, how to get it."""
    return DoctorResult(
        machine=this_machine(load_torch=True),
        versions=versions(),
        extras=extras(),
        models=tuple(
            OfflineModel(name, packaged_file(name), packaged.install)
            for name, packaged in PACKAGED.items()
        ),
    )
