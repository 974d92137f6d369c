"""Retrieval: passages that may hold an answer, best first.

`RETRIEVERS` is the whole list: name → class. To add one, write a file and a line here; a user's own
is named as `package.module:Class`. Knows texts and scores; knows nothing of how passages are shown
to a model.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fitune.errors import ConfigError, DataError
from fitune.names import lookup

if TYPE_CHECKING:
    from fitune.retrieval.encoder import Encoder

RETRIEVERS: dict[str, str] = {
    "bm25": "fitune.retrieval.bm25:Bm25",
    "dense": "fitune.retrieval.dense:Dense",
    "hybrid": "fitune.retrieval.hybrid:Hybrid",
    "qdrant": "fitune.retrieval.qdrant:Qdrant",
}
"""Name → where the class is; imported only when used."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found.

    Attributes:
        passage: its number, counted from 0 in the order in which passages were given.
        score: higher is better; comparable within one query only.
    """

    passage: int
    score: float


class Retriever(Protocol):
    """What every index answers, whether it compares words or vectors.

    A class is constructed with keyword options, each with a default.
    """

    def build(self, passages: Sequence[str]) -> None:
        """Index `passages`, in place of any that were there.

        Raises:
            DataError: there are none, or one is blank.
        """

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """For each query the `k` best passages, best first; equal scores in order of number.

        Fewer where there are fewer passages, or fewer that match at all; none for a blank query.

        Raises:
            ConfigError: `k` is less than 1, or nothing was built.
        """

    @property
    def parameters(self) -> int:
        """Learned numbers that a search needs; 0 where there is no model."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs, without pickle."""

    @classmethod
    def load(cls, folder: Path) -> Retriever:
        """Read what `save` wrote; the result answers exactly as before.

        Raises:
            RunError: a file is missing or damaged.
        """


def make_retriever(name: str, *, model: str | Encoder | None = None, **options: Any) -> Retriever:
    """The retriever called `name`, still empty.

    Args:
        model: the encoder, for those that have one; others compare words and take no notice.
        options: as the class's constructor takes them.

    Raises:
        ConfigError: no such name, or no such option.
    """
    kind = lookup(name, RETRIEVERS, "retriever")
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            raise ConfigError(
                f"retriever '{name}' has no option '{option}'",
                fix=f"did you mean '{near[0]}'" if near else f"its options are {', '.join(known)}",
            )
    if model is not None and "model" in known:
        options["model"] = model
    made: Retriever = kind(**options)
    return made


def check_passages(passages: Sequence[str]) -> None:
    """
    Raises:
        DataError: there are no passages, or one is blank.
    """
    if not passages:
        raise DataError("there are no passages to search", fix="give at least one")
    for number, text in enumerate(passages):
        if not text.strip():
            raise DataError(
                f"passage {number} of {len(passages):,} is blank",
                fix="leave out passages without text",
            )


def check_k(k: int) -> None:
    """
    Raises:
        ConfigError: fewer than one passage is asked for.
    """
    if k < 1:
        raise ConfigError(
            f"k is {k}, and a search gives at least 1 passage", fix="set k to 1 or more"
        )
