"""What is minimised: sums of losses over learned tokens or rows.

Knows batches and a model's outputs; knows nothing of methods or optimizers. An objective returns a
*sum* in float32 and leaves the division to the step, so that the mean over a global batch is exact
however it was cut. To add one, write a class in a file of its own and a line in `OBJECTIVES`.
"""

from __future__ import annotations

from fitune.training.objectives.classify import Classify
from fitune.training.objectives.dpo import Dpo
from fitune.training.objectives.masked import Masked
from fitune.training.objectives.objective import Objective, Redrawn
from fitune.training.objectives.seq2seq import Seq2Seq
from fitune.training.objectives.sft import Sft

__all__ = ["OBJECTIVES", "Classify", "Dpo", "Masked", "Objective", "Redrawn", "Seq2Seq", "Sft"]

OBJECTIVES: dict[str, type] = {
    "classify": Classify,
    "sft": Sft,
    "dpo": Dpo,
    "pretrain": Sft,
    "masked": Masked,
    "seq2seq": Seq2Seq,
}
