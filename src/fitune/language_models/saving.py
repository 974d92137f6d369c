"""A folder of language models that share a vocabulary.

Knows the table of models and files; knows nothing of how models are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fitune.errors import ConfigError, RunError
from fitune.language_models import LANGUAGE_MODELS, LanguageModel
from fitune.language_models.pretrained import Pretrained
from fitune.language_models.vocabulary import Vocabulary
from fitune.names import lookup
from fitune.runs import explain_damage, read_json, replaced_folder, write_json


def save_models(folder: Path, vocabulary: Vocabulary, models: Mapping[str, LanguageModel]) -> None:
    """Write models and their vocabulary: ``lm.json``, ``vocabulary.json``, ``NAME/``.

    Raises:
        ResourceError: disk full, no permission.
    """
    with replaced_folder(folder) as made:
        vocabulary.save(made / "vocabulary.json")
        places = {name: f"{number}-{Path(name).name}" for number, name in enumerate(models)}
        for name, model in models.items():
            model.save(made / places[name])
        write_json(made / "lm.json", {"models": places})


def load_models(folder: Path, names: Sequence[str]) -> tuple[Vocabulary, dict[str, LanguageModel]]:
    """What `save_models` wrote.

    Args:
        names: which of them; all where these are the standard ones.

    Raises:
        ConfigError: a model is not among them.
        RunError: missing or damaged.
    """
    if not (folder / "lm.json").is_file():
        raise RunError(
            f"'{folder}' holds no language models: there is no lm.json in it",
            fix="give the folder that `fitune lm --save` wrote",
        )
    record = read_json(folder / "lm.json")
    with explain_damage(folder):
        places: dict[str, str] = dict(record["models"])
        wanted = list(places) if tuple(names) == tuple(LANGUAGE_MODELS) else list(names)
        strange = [name for name in wanted if name not in places]
        if strange:
            raise ConfigError(
                f"'{folder}' holds no model '{strange[0]}'", fix=f"use {', '.join(places)}"
            )
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        models: dict[str, LanguageModel] = {}
        for name in wanted:
            kind: Any = Pretrained
            if name in LANGUAGE_MODELS:
                kind = lookup(name, LANGUAGE_MODELS, "language model")
            models[name] = kind.load(folder / places[name])
    return vocabulary, models
