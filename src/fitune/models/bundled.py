"""Configs of popular models, bundled: what can be estimated by name, without a network.

Knows the JSON files beside it (`configs/`, one a family) and names; knows nothing of weights, and
nothing of what the figures are used for. Each entry holds the fields of the model's published
`config.json` that decide shapes and memory (rotary frequencies, say, are left out), and the
parameter count that its makers or its weights file state, so that a test can hold the one against
the other.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib.resources
import json
from dataclasses import dataclass, field
from typing import Any

from fitune.errors import ModelError


@dataclass(frozen=True)
class BundledModel:
    """A model whose config comes with fitune.

    Attributes:
        id: on the Hub.
        aliases: other names: short ones, and Hub ids of models of the very same shapes.
        parameters: as published.
        exact: whether `parameters` is the exact count; else it is rounded, and within 1 % of it.
        source: where `parameters` is stated.
        config: fields of `config.json`; the text model's own where the model also takes images.
        licence: of the weights; None where unknown.
        pooling: ``"mean"`` or ``"cls"`` for sentence encoders, None for others.
        beyond: what `parameters` counts that the model built from `config` does not hold
            (name → parameters), e.g. a vision tower, or an output head that is stored twice.
        note: what a reader of the figure should know.
    """

    id: str
    aliases: tuple[str, ...]
    parameters: int
    exact: bool
    source: str
    config: dict[str, Any]
    licence: str | None = None
    pooling: str | None = None
    beyond: dict[str, int] = field(default_factory=dict)
    note: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names that find this model, in lower case: ids with and without their owner."""
        full = [name.lower() for name in (self.id, *self.aliases)]
        return tuple(dict.fromkeys([*full, *(name.rpartition("/")[2] for name in full)]))


@functools.cache
def bundled_models() -> tuple[BundledModel, ...]:
    """Every bundled model, family by family, in a few milliseconds."""
    folder = importlib.resources.files("fitune.models").joinpath("configs")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    entries = (entry for file in files for entry in json.loads(file.read_text("utf-8")))
    return tuple(BundledModel(**{**entry, "aliases": tuple(entry["aliases"])}) for entry in entries)


@functools.cache
def _by_name() -> dict[str, BundledModel]:
    return {name: model for model in bundled_models() for name in model.names}


def find_bundled(name: str) -> BundledModel | None:
    """The model of that Hub id (with or without its owner) or alias, in any case of letters."""
    return _by_name().get(name.strip().lower())


def near_names(name: str, count: int = 3) -> tuple[str, ...]:
    """The Hub ids of bundled models whose names look most like `name`, best first."""
    # A model has several names: look at more than are wanted, so that enough models remain.
    near = difflib.get_close_matches(name.strip().lower(), _by_name(), n=4 * count)
    return tuple(dict.fromkeys(_by_name()[found].id for found in near))[:count]


def bundled_config(model: BundledModel) -> Any:
    """The transformers config of a bundled model, a new one at each call.

    Raises:
        ModelError: the installed transformers does not know the family.
    """
    from transformers import AutoConfig

    from fitune.models.quiet import quiet

    try:
        with quiet():
            return AutoConfig.for_model(**copy.deepcopy(model.config))
    except ValueError as error:
        raise ModelError(
            f"the installed transformers does not know '{model.config['model_type']}', "
            f"the family of '{model.id}'",
            fix="pip install --upgrade transformers",
        ) from error
