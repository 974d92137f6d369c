"""The table that users of `accelerate estimate-memory` know, by that tool's own rules.

Knows a model's config; knows nothing of steps or traces. The rules (accelerate/commands/estimate.py
and utils/modeling.py): the model is the one `AutoModel` builds, without its output head, unless the
config's `auto_map` names another class. The largest layer is the largest module that is not split
over devices (its `_no_split_modules`) or has no children. Total size is weights and buffers, and
training with Adam is four times that: weights, gradients and two states. Other dtypes are fractions
of float32. No activations, no method, no other optimizer: what fits has to be found elsewhere.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from fitune.errors import ModelError

# Of the float32 size; Adam where training in that dtype is usual.
_SHARES = {"float32": (1, True), "float16": (2, True), "int8": (4, False), "int4": (8, False)}


@dataclass(frozen=True)
class FamiliarRow:
    """One line of the table, in bytes.

    Attributes:
        dtype: ``"float32"``, ``"float16"``, ``"int8"`` or ``"int4"``.
        largest_layer_bytes: of the largest module that stays on one device.
        total_bytes: of all weights and buffers.
        adam_bytes: of training with Adam; None where the tool says N/A.
    """

    dtype: str
    largest_layer_bytes: int
    total_bytes: int
    adam_bytes: int | None


def familiar_table(config: Any) -> tuple[FamiliarRow, ...]:
    """The table of a transformers config.

    Builds the model on the meta device, so no weights are needed and none are allocated.

    Raises:
        ModelError: transformers cannot build such a model, or only with the model's own code.
    """
    import torch
    from accelerate.utils import calculate_maximum_sizes

    from fitune.models.quiet import quiet

    config = copy.deepcopy(config)  # building writes the dtype into it
    try:
        with quiet(), torch.device("meta"):
            model = _auto_class(config).from_config(config, dtype=torch.float32)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"no model can be built from this '{config.model_type}' config ({reason:.200})",
            fix="check the config, or leave the table of dtypes out",
        ) from error
    total, (largest, _) = calculate_maximum_sizes(model)
    return tuple(
        FamiliarRow(
            dtype,
            largest_layer_bytes=int(largest / parts),
            total_bytes=int(total / parts),
            adam_bytes=int(4 * total / parts) if trained else None,
        )
        for dtype, (parts, trained) in _SHARES.items()
    )


def printed(size: int) -> str:
    """Bytes as that tool prints them: powers of 1024 under the names of powers of 1000.

    ``15_284_318_208`` → ``"14.23 GB"``.
    """
    amount: float = size
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if amount < 1024:
            return f"{round(amount, 2)} {unit}"
        amount /= 1024
    return f"{round(amount, 2)} PB"


def _auto_class(config: Any) -> Any:
    import transformers

    named = getattr(config, "auto_map", None) or {}
    first = next((key for key in named if key.startswith("AutoModelFor")), "AutoModel")
    return getattr(transformers, first, transformers.AutoModel)
