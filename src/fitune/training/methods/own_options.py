"""Which options only some methods have.

Knows names of options and methods; knows no method.
"""

from __future__ import annotations

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.training.precision import LOW_RANK

OWN_OPTIONS: dict[str, tuple[str, ...]] = {
    "freeze_layers": ("freeze",),
    "rslora": LOW_RANK,
    "lora_plus": LOW_RANK,
    "lora_init": ("lora",),
    "adapter": LOW_RANK,
}
"""Option → the methods that have it. Those with a value of their own for every model (`rank`,
`alpha`) stay in a task file whose method is changed for a try, and are not in here."""


def check_options(options: Finetuned, default: str) -> None:
    """Refuse options that the method does not have.

    A user's own method has them all.

    Args:
        default: the method where none is named.

    Raises:
        ConfigError: it does not.
    """
    method = options.method or default
    for field, methods in OWN_OPTIONS.items():
        value = getattr(options, field)
        if value == Finetuned.model_fields[field].default or ":" in method or method in methods:
            continue
        first, *others = methods
        also = f" or {', '.join(others)}" if others else ""
        raise ConfigError(
            f"{field} is {value if value is not True else 'true'}, but method is "
            f"'{options.method or 'chosen by fitune'}'",
            fix=f"set method: {first}{also}, or remove {field}",
        )
