"""A decoder that is shown k training rows with their answers before each question.

Knows how examples are chosen and made to fit; how they are asked is `prompt`'s matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitune import config
from fitune.approaches.prompt import Prompt
from fitune.data.rows import Row, Rows
from fitune.errors import DataError

EXAMPLES_SHARE = 0.6
"""Of the context: the most that examples may take, so that the question always has room."""


class FewShot(Prompt):
    """Examples balanced over labels, chosen by the task's seed, within the context length."""

    use = "few-shot"
    _options: config.FewShot

    def fit(self, train: Rows, validation: Rows) -> None:
        super().fit(train, validation)
        wanted = self._options.examples
        ranked = balanced(train, seed=self.work.task.seed, balance=bool(self.work.labels))
        budget = int(self.max_length * EXAMPLES_SHARE)
        empty = Row("")
        chosen: list[Row] = []
        skipped = 0
        for row in ranked:
            if len(chosen) == wanted:
                break
            if len(self.template.prompt(empty, [*chosen, row])) <= budget:
                chosen.append(row)
            else:
                skipped += 1
            if skipped > 10 * wanted:  # nothing shorter is likely to come
                break
        if not chosen:
            raise DataError(
                f"not one example fits into {budget:,} tokens ({EXAMPLES_SHARE:.0%} of max_length "
                f"{self.max_length:,})",
                fix="raise max_length, or remove few-shot from approaches",
            )
        if len(chosen) < wanted:
            self.work.notice(
                f"few-shot shows {len(chosen)} of {wanted} examples: more do not fit into "
                f"{budget:,} of {self.max_length:,} tokens, or there are no more rows."
            )
        self.examples = tuple(chosen)

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"examples_shown": [row.source for row in self.examples]}

    @staticmethod
    def _read_options(saved: dict[str, Any]) -> config.FewShot:
        return config.FewShot.model_validate(saved)


def balanced(rows: Rows, *, seed: int, balance: bool) -> list[Row]:
    """Rows in the order in which they are taken as examples: a round over labels, then another.

    Rows are visited by content hash order shuffled with `seed`, so file order has no influence.
    """
    ordered = sorted(rows, key=lambda row: row.content_hash)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    if not balance:
        return shuffled
    seen: dict[str, int] = {}
    rounds: list[tuple[int, int, Row]] = []
    for position, row in enumerate(shuffled):
        turn = seen.get(row.answer or "", 0)
        seen[row.answer or ""] = turn + 1
        rounds.append((turn, position, row))
    return [row for _, _, row in sorted(rounds, key=lambda item: item[:2])]
