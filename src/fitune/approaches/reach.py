"""How much of a row an encoder reads that nobody tunes.

Knows templates, encoders and the task's word on rows that are too long; knows nothing of what is
made of the vectors.
"""

from __future__ import annotations

from fitune.approaches.base import Work
from fitune.data.limits import encode_rows
from fitune.data.rows import Rows
from fitune.data.template import TextTemplate


def rows_within_reach(
    rows: Rows, template: TextTemplate, max_length: int, work: Work, what: str
) -> list[int]:
    """The indices of the rows that are read; how many are cut or left out is said.

    Args:
        max_length: tokens of a row that the encoder reads.
        what: the rows' name for messages; only ``"training"`` rows may be left out.

    Raises:
        DataError: a row is longer, and the task refuses such rows.
    """
    _, kept, notes = encode_rows(
        template.encode,
        rows,
        tokenizer=template.tokenizer,
        max_length=max_length,
        too_long=work.task.data.too_long,
        what=what,
        drop_allowed=what == "training",
        together=template.encode_all,
    )
    for note in notes:
        work.notice(note)
    return kept
