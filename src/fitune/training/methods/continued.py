"""An adapter that training goes on from: what it says of itself, checked before anything loads.

Knows PEFT's files; knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fitune.config import Finetuned
from fitune.errors import ConfigError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

FIELDS = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora"}
"""Option → PEFT's name."""


def with_adapter(options: Finetuned) -> Finetuned:
    """`options` with the rank, alpha, scale and modules of the adapter they name; as they are where
    they name none.

    Raises:
        ConfigError: no adapter of that kind is there, or an option that was given says otherwise.
    """
    if options.adapter is None:
        return options
    said = _read(Path(options.adapter))
    dora = bool(said.get("use_dora"))
    if dora != (options.method == "dora"):
        raise ConfigError(
            f"the adapter '{options.adapter}' was trained with {'dora' if dora else 'lora'}, and "
            f"method is '{options.method or 'chosen by fitune'}'",
            fix=f"set method: {'dora' if dora else 'lora or qlora'}",
        )
    if options.lora_init != "zero":
        raise ConfigError(
            f"lora_init is {options.lora_init}, and training goes on from the adapter "
            f"'{options.adapter}'",
            fix="remove one of the two",
        )
    found: dict[str, Any] = {field: said[name] for field, name in FIELDS.items() if name in said}
    modules = said["target_modules"]
    found["target_modules"] = modules if isinstance(modules, str) else tuple(sorted(modules))
    for field, value in found.items():
        given = getattr(options, field)
        if field not in options.model_fields_set or _same(given, value):
            continue
        raise ConfigError(
            f"{field} is {_shown(given)}, and the adapter '{options.adapter}' has {_shown(value)}",
            fix=f"remove {field}, or the adapter",
        )
    return options.model_copy(update=found)


def fingerprint(options: Finetuned) -> str | None:
    """Of the adapter's weights; None where training starts anew."""
    if options.adapter is None:
        return None
    return hashlib.sha256((Path(options.adapter) / WEIGHTS).read_bytes()).hexdigest()


def count_tensors(folder: str) -> int:
    """How many an adapter has.

    Raises:
        SafetensorError: the file is broken.
    """
    from safetensors import safe_open

    with safe_open(Path(folder) / WEIGHTS, framework="pt") as file:
        return len(file.keys())


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        inner = folder / "adapter"
        near = f"did you mean '{inner}'? " if (inner / CONFIG).is_file() else ""
        raise ConfigError(
            f"there is no adapter in '{folder}' (no {CONFIG})",
            fix=f"{near}give the folder that PEFT or `fitune tune` saved an adapter in",
        )
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"the adapter '{folder}' has no {WEIGHTS}",
            fix="restore the file; weights in another format are not read",
        )
    try:
        said = json.loads((folder / CONFIG).read_text("utf-8"))
        kind = said["peft_type"]
        assert isinstance(said["target_modules"], str | list) and isinstance(said["r"], int)
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"the adapter '{folder}' cannot be read: its {CONFIG} is no description of an adapter",
            fix="restore the file",
        ) from error
    if kind != "LORA":
        raise ConfigError(
            f"the adapter '{folder}' is of the kind {kind}, and only LORA can be trained further",
            fix="remove adapter, or name another",
        )
    return said


def _same(given: Any, value: Any) -> bool:
    if isinstance(given, tuple) and isinstance(value, tuple):
        return set(given) == set(value)
    return given == value or given == "all-linear"


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value).lower()
