"""What the plan says fits, fits: random ways of training under hard limits of memory.

    ./run bench fit                     30 cases (one to two hours on one core)
    ./run bench fit --keep              go on: cases that fit.json holds are not run again
    ./run bench fit --count 3 --seed 9  others, which are printed only

Each case is a model, a method, an optimizer, a length of rows and a budget. fitune plans the
largest micro-batch. Then two real optimizer steps and an evaluation run with that many rows in a
process of its own, whose memory the kernel limits to the budget (RLIMIT_DATA, above what the
process had after its imports); then with one row more, to see whether the plan was timid. What the
first refused number of rows really needs is measured without a limit.

Writes memory/fit.json after each case, and memory/FIT.md at the end.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.memory.cases import MIB, Case, Outcome, cases, outcome

RESULTS = Path(__file__).parent / "memory" / "fit.json"

MOST = 64
"""Rows: beyond, a case says nothing of memory."""

TIGHT = 0.85
"""Of the budget: what is taken at least where one row more would have ended, too."""


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 where a case breaks the promise."""
    parser = ArgumentParser(
        prog="./run bench fit", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(arguments)
    published = (options.count, options.seed) == (30, 0)
    before = _read(RESULTS) if published and options.keep else []
    outcomes: list[Outcome] = []
    for number, case in enumerate(cases(options.count, options.seed), start=1):
        known = next((each for each in before if each.case == case), None)
        outcomes.append(known or outcome(case, MOST))
        print(f"{number:3}/{options.count} {_row(outcomes[-1])}", flush=True)
        if published:
            _write(RESULTS, outcomes)
    text = _page(outcomes)
    print(text)
    if published:
        RESULTS.with_name("FIT.md").write_text(text, "utf-8")
    return int(any(broken(each) for each in outcomes))


def _read(path: Path) -> list[Outcome]:
    facts = json.loads(path.read_text("utf-8")) if path.is_file() else []
    made = []
    for fact in facts:
        fact.pop("broken")
        made.append(Outcome(**{**fact, "case": Case(**fact["case"])}))
    return made


def _write(path: Path, outcomes: Sequence[Outcome]) -> None:
    facts = [{**asdict(each), "broken": broken(each)} for each in outcomes]
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


def broken(found: Outcome) -> str:
    """What of the promise a case breaks, if anything."""
    if found.ended is False:
        return "did not fit"
    if found.refused_held and found.refused_held < found.predicted * 0.97:
        return "refused more than it needs"
    if found.more_ended and (found.used or 0.0) < TIGHT:
        return "timid"
    return ""


def _row(found: Outcome) -> str:
    rows = f"{found.rows:,}" if found.rows else "none"
    used = f"{found.used:.1%}" if found.used is not None else ""
    refused = f"{found.refused_held / found.case.budget:.2f}" if found.refused_held else ""
    words = [found.case.line.format("…"), f"{found.case.budget / MIB:,.0f}", rows, used]
    words += ["yes" if found.more_ended else "no", refused, broken(found)]
    return "| " + " | ".join(words) + " |"


def _page(outcomes: Sequence[Outcome]) -> str:
    planned = [each for each in outcomes if each.rows]
    ended = sum(bool(each.ended) for each in planned)
    lines = [
        "# What the plan says fits, fits",
        "",
        f"Written by `./run bench fit`. {len(outcomes)} random cases (`cases.py`)."
        f" In {len(planned)} something fits, and in {ended} of them the planned rows ended: two"
        " real optimizer steps and an evaluation, under a hard limit of the process's data"
        " (RLIMIT_DATA: the budget above what the process had after its imports). *Taken*: the most"
        " that the process had of the budget. *One more*: whether one row more would have ended,"
        f" too; then at least {TIGHT:.0%} should be taken. *Refused*: what the tensors of the first"
        " refused number of rows need, measured, over the budget."
        f" At most {MOST} rows are asked for.",
        "",
        "| way | budget, MiB | rows | taken | one more | refused | |",
        "|---|--:|--:|--:|---|--:|---|",
        *map(_row, outcomes),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
