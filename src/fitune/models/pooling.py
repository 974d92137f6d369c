"""How an encoder's token vectors become one vector per row, as its model was trained to do.

Knows the folders that sentence-transformers writes; knows nothing of heads or tasks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fitune.errors import ModelError

if TYPE_CHECKING:
    import torch

PoolingMode = Literal["mean", "cls", "max", "last"]


@dataclass(frozen=True)
class Pooling:
    """What turns ``[rows, tokens, hidden]`` into ``[rows, hidden]``.

    Attributes:
        mode: mean or maximum over tokens, or the first or last token's vector.
        normalize: whether the vector is scaled to length one.
        max_length: the most tokens the model was trained to pool; None when not said.
    """

    mode: PoolingMode
    normalize: bool
    max_length: int | None = None

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool `hidden` ``[rows, tokens, hidden]`` under `mask` ``[rows, tokens]`` (1 = token).

        Computed and returned in float32: bf16 sums over many tokens lose their small addends.
        """
        import torch

        hidden = hidden.float()
        if self.mode == "cls":
            pooled = hidden[:, 0]
        elif self.mode == "last":
            last = mask.sum(dim=1) - 1
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), last]
        elif self.mode == "max":
            pooled = hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)
        else:
            weights = mask[..., None].to(hidden.dtype)
            pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled


_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls": "cls",
    "pooling_mode_mean": "mean",
    "pooling_mode_max": "max",
}


def read_pooling(folder: Path) -> Pooling | None:
    """The pooling a sentence-transformers folder says it was trained with.

    None for other folders, and for poolings that `Pooling` does not have.

    Raises:
        ModelError: its files are broken.
    """
    if not (folder / "modules.json").is_file():
        return None
    try:
        return _read(folder)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"'{folder}' does not say how its vectors are pooled as sentence-transformers does: "
            f"its modules.json, or a file that it names, is broken ({type(error).__name__}: "
            f"{error})",
            fix="fetch the folder again, or remove modules.json to use the model's own head",
        ) from error


def _read(folder: Path) -> Pooling | None:
    modules = json.loads((folder / "modules.json").read_text())
    normalize = any(module["type"].endswith("Normalize") for module in modules)
    for module in modules:
        if not module["type"].endswith("Pooling"):
            continue
        config = json.loads((folder / module["path"] / "config.json").read_text())
        named = config.get("pooling_mode", ())  # the newer spelling
        modes = [f"pooling_mode_{mode}" for mode in ([named] if isinstance(named, str) else named)]
        modes += [flag for flag, on in config.items() if flag.startswith("pooling_mode_") and on]
        known = {mode for flag, mode in _FLAGS.items() if flag in modes}
        # Several modes side by side, or one not known here, are not what any single mode gives.
        if len(known) == 1 and len(set(modes)) == 1:
            return Pooling(known.pop(), normalize, _trained_length(folder))
    return None


def _trained_length(folder: Path) -> int | None:
    path = folder / "sentence_bert_config.json"
    value = json.loads(path.read_text()).get("max_seq_length") if path.is_file() else None
    return int(value) if value else None
