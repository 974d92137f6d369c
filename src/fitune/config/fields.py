"""What the fields of a task file share: limits, strictness, and what every rung has.

Knows types; knows no field of any approach.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Unknown fields are errors, and nothing changes after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Switch = Annotated[bool, Field(strict=True)]
Weight = Annotated[float, Field(gt=0.0)]

MODEL = "A packaged name, a folder, a GGUF file, or a Hub id (`ORG/NAME`, with `download: true`)."


class ApproachConfig(Strict):
    """What every rung of the ladder has."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="In the table and the run folder; default: from what it uses.",
    )
    max_train_rows: Positive | None = Field(
        None, description="Learn from this many training rows at most (shown in the table)."
    )
