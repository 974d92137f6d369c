"""The published memory grid: predicted beside measured, and beside what other tools say.

    ./run bench memory                  measure and predict every cell (about an hour on one core)
    ./run bench memory --keep           do not measure again what results.json holds
    ./run bench memory --only gpt2      cells whose line in memory/cells.txt holds these words

Writes memory/results.json after each cell and memory/RESULTS.md at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.memory.grid import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], usage=__doc__))
