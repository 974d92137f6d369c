"""Options of approaches that ask a decoder as it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fitune.config.fields import MODEL, ApproachConfig, Positive


class Prompt(ApproachConfig):
    """A decoder with an instruction and no examples."""

    use: Literal["prompt"] = "prompt"
    model: str = Field("smollm2-135m", description=MODEL)
    max_length: Positive | None = Field(None, description="Tokens of prompt and answer together.")


class FewShot(ApproachConfig):
    """A decoder with an instruction and examples taken from the training rows."""

    use: Literal["few-shot"] = "few-shot"
    model: str = Field("smollm2-135m", description=MODEL)
    examples: Positive = Field(8, description="How many are shown, balanced over the labels.")
    max_length: Positive | None = Field(None, description="Tokens of prompt and answer together.")
