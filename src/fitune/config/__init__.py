"""The shape of a task file.

Knows field names, types, limits and defaults; knows no other room: names such as a method's or a
metric's are plain strings here and are resolved by `api`, before anything loads. A field whose
default is None is chosen by fitune from the model and the data, and the chosen value is written
into the run folder.
"""

from fitune.config.classic import Hmm, Linear, Majority, NGram, Recurrent
from fitune.config.data import Data, RowCaps
from fitune.config.fields import ApproachConfig, Strict
from fitune.config.finetuned import MAY_CHANGE, Finetuned
from fitune.config.judge import Judge
from fitune.config.prompting import FewShot, Prompt
from fitune.config.retrieving import Embeddings, Knn, Rag
from fitune.config.task import KNOWN, Custom, Task

__all__ = [
    "KNOWN",
    "MAY_CHANGE",
    "ApproachConfig",
    "Custom",
    "Data",
    "Embeddings",
    "FewShot",
    "Finetuned",
    "Hmm",
    "Judge",
    "Knn",
    "Linear",
    "Majority",
    "NGram",
    "Prompt",
    "Rag",
    "Recurrent",
    "RowCaps",
    "Strict",
    "Task",
]
