"""The run's own record of its training: metrics.jsonl, one JSON record a line.

Knows records and a file; knows nothing of what they measure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fitune.runs import explain_os_errors, read_jsonl, write_jsonl


class MetricsFile:
    """Appends records; `rewind` takes back those that a resumed run will write again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, record: dict[str, Any]) -> None:
        with explain_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def rewind(self, step: int) -> dict[str, int]:
        """Drop records of steps after `step` (steps count from one once done).

        Returns:
            kind of record → the last step that there was one of, before any was dropped.
        """
        if not self.path.is_file():
            return {}
        records = read_jsonl(self.path)
        write_jsonl(self.path, [r for r in records if r.get("step", 0) <= step])
        return {r["kind"]: r["step"] for r in records}
