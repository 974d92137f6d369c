"""One self-contained HTML page for a run, built from the files in its folder alone.

Knows the run folder's layout and the ladder's figures; knows nothing of how a run was made.
"""

from fitune.report.write import write_report

__all__ = ["write_report"]
