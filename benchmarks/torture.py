"""Kill -9 at any moment, go on: is the result the same to the last bit?

    ./run torture [FOLDER] [--kills 200] [--seed 0] [--json]

Runs of two kinds: an encoder of which every weight trains, and a decoder with LoRA on packed rows;
both tiny, with dropout, several micro-batches to a step, evaluations and checkpoints every few
steps. Each kind is run once undisturbed. Then every kill point gets a run of its own: it is killed
there, goes on (a third of them are killed once more while they do), and its weights, answers,
curve and figures are compared with the undisturbed run's.

Half of the kill points are any moment from the first step to the last file, half lie inside the
write of a checkpoint: its unfinished folder was seen, and was still there after the kill.

Starting Python and importing torch takes longer than such a run, so most attempts are forked from
this process, which has imported everything and done nothing; the undisturbed runs and every ninth
run are processes of their own. FOLDER keeps the runs that differ; without it nothing is kept. Exit
code 1 if any does. Of 200 kills with seed 0, the result goes to results/torture.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST = 1800.0
"""Seconds after which an attempt is taken for hung."""

COLD = 9
"""Of so many runs one is made of processes of its own."""

PATIENT = ("torch", "peft", "sklearn.linear_model", "fitune.api", "fitune.approaches.finetuned")
MODELS = ("bert.modeling_bert", "llama.modeling_llama", "auto.tokenization_auto")
WARM = (*PATIENT, *(f"transformers.models.{name}" for name in MODELS))
"""Imported before the first fork."""

ENTRIES: dict[str, dict[str, Any]] = {
    "encoder": {"method": "full", "micro_batch_tokens": 48},
    "decoder": {"method": "lora", "rank": 4, "lora_dropout": 0.1, "micro_batch_tokens": 80},
}
COMMON: dict[str, Any] = {
    "use": "finetuned",
    "name": "tuned",
    "epochs": 3,
    "batch_size": 8,
    "evaluations_per_epoch": 2,
    "patience": 100,
    "checkpoint_steps": 3,
}


@dataclass
class Tally:
    """What became of the runs of one kind.

    Attributes:
        runs: that were killed at least once, and then left to end.
        kills: SIGKILLs that met a living process.
        inside_write: those of them that left an unfinished folder of a checkpoint.
        alike: runs that ended bit-identical to the undisturbed one.
        odd: what differs in the others.
    """

    runs: int = 0
    kills: int = 0
    inside_write: int = 0
    alike: int = 0
    odd: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 where a run differs."""
    parser = ArgumentParser(
        prog="./run torture", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        tallies = torture(folder, options.kills, options.seed)
    from fitune.hardware import this_machine

    machine = this_machine()
    facts = {
        "cpu": machine.cpu,
        "seed": options.seed,
        "seconds": round(time.monotonic() - started),
        "kinds": {kind: asdict(tally) for kind, tally in tallies.items()},
    }
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    print(text if options.json else _table(tallies))
    if (options.kills, options.seed) == (200, 0):
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "torture.json").write_text(text, "utf-8")
    return int(any(tally.alike < tally.runs for tally in tallies.values()))


def torture(folder: Path, kills: int, seed: int) -> dict[str, Tally]:
    """So many runs in `folder`, the two kinds in turns, each killed at least once."""
    draw = random.Random(seed)
    tasks = {kind: _task(folder, kind) for kind in ENTRIES}
    whole = {kind: folder / kind for kind in ENTRIES}
    undisturbed = [Attempt(whole[kind], tasks[kind], cold=True) for kind in ENTRIES]
    for name in WARM:
        import_module(name)
    for attempt in undisturbed:
        attempt.end()
    spans = {kind: Span(_run(whole[kind])) for kind in ENTRIES}
    tallies = {kind: Tally() for kind in ENTRIES}
    for number in range(kills):
        kind = list(ENTRIES)[number % len(ENTRIES)]
        output = folder / f"{kind}-{number:04}"
        start = partial(Attempt, output, tasks[kind], cold=number % COLD == COLD - 1)
        tally, points, found = tallies[kind], [], []
        try:
            for point in _killed(start, spans[kind], draw, inside=number // len(ENTRIES) % 2 == 1):
                points.append(point)
            start().end()
            found = differences(_run(whole[kind]), _run(output))
        except Failed as error:
            found = [str(error)]
        tally.runs += 1
        tally.kills += len(points)
        tally.inside_write += sum(point.inside_write for point in points)
        tally.alike += not found
        tally.odd += [f"{output.name}: {what}" for what in found]
        if not found:
            shutil.rmtree(output)
        where = " and ".join(point.where for point in points)
        print(
            f"{number + 1:4}/{kills} {kind} killed {where}: {', '.join(found) or 'alike'}",
            file=sys.stderr,
            flush=True,
        )
    return tallies


def _killed(
    start: Callable[[], Attempt], span: Span, draw: random.Random, *, inside: bool
) -> Iterator[Attempt]:
    """The attempts of one run that were killed: one, or two."""
    while not _hit(attempt := start(), span, draw, inside):
        attempt.end()
        shutil.rmtree(attempt.output)
    yield attempt
    if draw.random() < 1 / 3:
        attempt = start()
        if attempt.killed_after(draw.uniform(0, span.seconds)):
            yield attempt


class Failed(Exception):
    """An attempt neither ended well nor was killed."""


class Span:
    """How long a run of one kind works, from its first step to its last file; learned as it goes.

    Attributes:
        seconds: of the whole.
        write: seconds of the write of a checkpoint.
        steps: optimizer steps.
    """

    def __init__(self, run: Path) -> None:
        records = _records(run)
        self.steps = max(record["step"] for record in records)
        self.seconds = 3 * sum(record.get("seconds", 0.0) for record in records)
        self.write = 0.01


class Attempt:
    """One `fitune tune`, which starts a run or goes on with it.

    Args:
        output: where its run is, or will be.
        cold: a process of its own, instead of a fork of this one.
    """

    def __init__(self, output: Path, task: Path, cold: bool) -> None:
        self.output, self.inside_write, self.where = output, False, ""
        self.log = output.with_suffix(".log")
        run = _run(output)
        words = ["tune", "--resume", str(run)]
        if not (run / "task.json").is_file():
            words = ["tune", str(task), "--set", f"output={output}"]
        self.started = time.monotonic()
        self.pid = self._spawn(words) if cold else self._fork(words)
        self.code: int | None = None

    def _spawn(self, words: list[str]) -> int:
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "fitune", *words]
            # Not waited for through this object, but by its id, as a fork is.
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self._process.pid

    def _fork(self, words: list[str]) -> int:
        if pid := os.fork():
            return pid
        code = 1
        try:
            handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            from fitune.cli import main

            code = main(words)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def alive(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        if self.code is None and time.monotonic() - self.started > LONGEST:
            os.kill(self.pid, signal.SIGKILL)
            raise Failed(f"still running after {LONGEST:.0f} s: {self._said()}")
        if self.code not in (None, 0, -signal.SIGKILL):
            raise Failed(f"ended with exit code {self.code}: {self._said()}")
        return self.code is None

    def end(self) -> None:
        """Wait for it, which must end well."""
        while self.alive():
            time.sleep(0.002)
        self.log.unlink()

    def killed_after(self, seconds: float) -> bool:
        """Whether it still worked after so many seconds from now, and so was killed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.alive():
                return False
            time.sleep(min(0.002, max(0.0, until - time.monotonic())))
        os.kill(self.pid, signal.SIGKILL)
        while self.alive():
            time.sleep(0.0005)
        if self.code == 0:  # it ended in the moment between
            return False
        self.inside_write = bool(self.unfinished())
        records = _records(_run(self.output))
        self.where = f"after step {max((r['step'] for r in records), default=0)}"
        self.where += " in a write" if self.inside_write else ""
        return True

    def unfinished(self) -> list[Path]:
        """Folders of checkpoints and of best weights that are being written."""
        checkpoints = _run(self.output) / "rungs" / COMMON["name"] / "checkpoints"
        return [*checkpoints.glob(".step-*.partial"), *checkpoints.glob("best/.step-*.partial")]

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def _hit(attempt: Attempt, span: Span, draw: random.Random, inside: bool) -> bool:
    """Kill a run that has begun to train; whether it was met alive."""
    run = _run(attempt.output)
    steps = draw.randrange(1, span.steps) if inside else 1
    while len(_records(run)) < steps:
        if not attempt.alive():
            return False
        time.sleep(0.0005)
    if not inside:
        began = time.monotonic()
        if attempt.killed_after(draw.uniform(0, span.seconds)):
            return True
        span.seconds = time.monotonic() - began
        return False
    while not attempt.unfinished():
        if not attempt.alive():
            return False
    hit = attempt.killed_after(draw.uniform(0, span.write))
    if hit and not attempt.inside_write:  # the write is shorter than was thought
        span.write *= 0.8
    return hit


def differences(whole: Path, other: Path) -> list[str]:
    """What of two runs is not the same to the last bit; how long they took does not count."""
    rungs = [next((run / "rungs").iterdir()) for run in (whole, other)]
    found = []
    weights = [{p.relative_to(r) for p in r.rglob("*.safetensors")} for r in rungs]
    if weights[0] != weights[1] or not weights[0]:
        found.append(f"files {sorted(map(str, weights[0] ^ weights[1]))}")
    names = [*map(str, sorted(weights[0] & weights[1])), "predictions.jsonl", "options.json"]
    found += [n for n in names if (rungs[0] / n).read_bytes() != (rungs[1] / n).read_bytes()]
    if _records(whole, timed=False) != _records(other, timed=False):
        found.append("metrics.jsonl")
    figures = [json.loads((rung / "rung.json").read_text()) for rung in rungs]
    scores = ("value", "interval", "metrics", "train_rows", "parameters", "trainable_parameters")
    found += [f"rung.json: {name}" for name in scores if figures[0][name] != figures[1][name]]
    return found


def _records(run: Path, *, timed: bool = True) -> list[dict[str, Any]]:
    """The records of a training, without the last line where it is cut off."""
    path = next(run.glob("rungs/*/metrics.jsonl"), None)
    lines = path.read_text().split("\n")[:-1] if path else []
    records = [json.loads(line) for line in lines]
    return records if timed else [{**record, "seconds": None} for record in records]


def _run(output: Path) -> Path:
    """The only run in it."""
    return output / "torture-1"


def _task(folder: Path, kind: str) -> Path:
    """A tiny model, its rows and the task file."""
    sys.path.append(str(HERE.parent / "tests"))
    import yaml

    from conftest import WORDS, save_decoder, save_encoder

    save = {"encoder": save_encoder, "decoder": save_decoder}[kind]
    model = save(folder / f"model-{kind}")
    draw = random.Random(0)
    words = {"card": "lost_card", "transfer": "late_transfer", "pin": "change_pin"}
    lines = ["text,label"]
    for number in range(120):
        word, label = list(words.items())[number % 3]
        lines.append(f"{' '.join(draw.choices(WORDS, k=1 + number % 11))} {word} {number},{label}")
    rows = folder / "rows.csv"
    rows.write_text("\n".join(lines) + "\n")
    approach = {**COMMON, **ENTRIES[kind], "model": str(model.absolute())}
    task = {
        "kind": "classify",
        "name": "torture",
        "data": {"train": str(rows.absolute())},
        "approaches": [approach],
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(task))
    return path


def _table(tallies: dict[str, Tally]) -> str:
    lines = ["| | runs killed | kills | inside a write | bit-identical |", "|---|--:|--:|--:|--:|"]
    for kind, tally in tallies.items():
        facts = (tally.runs, tally.kills, tally.inside_write, tally.alike)
        lines.append(f"| {kind} | " + " | ".join(map(str, facts)) + " |")
    odd = [line for tally in tallies.values() for line in tally.odd]
    return "\n".join([*lines, *odd])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork must find no threads
    sys.exit(main(sys.argv[1:]))
