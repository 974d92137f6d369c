"""The run folder: what is in it, written so that a crash never leaves half a file.

    <output>/<task name>-<n>/
      task.json           the task, with every default
      environment.json    versions and hardware
      verb.json           `ladder` or `tune`, and which rung `tune` trains
      data.json           counts, labels, notes and hash of the splits
      rows.test.jsonl     the rows every approach answered
      rungs/<name>/       options.json · metrics.jsonl · predictions.jsonl · rung.json · model/;
                          checkpoints/ until the rung is finished
      ladder.json         status, the rungs' order, the recommendation
      report.html

Knows files and JSON; knows nothing of how their contents were made.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitune.errors import FituneError, ResourceError, RunError


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def rung(self, name: str) -> Path:
        return self.folder / "rungs" / name

    def read(self, name: str) -> Any:
        """The JSON file `name` of this run.

        Raises:
            RunError: missing or damaged.
        """
        return read_json(self.folder / name)

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()


def create_run(output: Path, name: str) -> Run:
    """Make the next free folder ``<output>/<name>-<n>``.

    Raises:
        ResourceError: the folder cannot be made.
    """
    with explain_os_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        taken = [p.name.removeprefix(f"{name}-") for p in output.glob(f"{name}-*")]
        n = max((int(t) for t in taken if t.isdecimal()), default=0) + 1
        while True:
            folder = output / f"{name}-{n}"
            try:  # mkdir decides between two processes that start at once
                folder.mkdir()
                return Run(folder)
            except FileExistsError:
                n += 1


def open_run(folder: Path) -> Run:
    """An existing run.

    Raises:
        RunError: no folder, or not a run of fitune.
    """
    if not folder.is_dir():
        raise RunError(
            f"there is no run folder '{folder}'", fix="give the folder that `fitune ladder` printed"
        )
    if not (folder / "task.json").is_file():
        raise RunError(
            f"'{folder}' is not a run folder: there is no task.json in it",
            fix="give the folder that `fitune ladder` printed",
        )
    return Run(folder)


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold the run for this process; the lock ends with the process, however it ends.

    Raises:
        RunError: another process works in this run.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock: two processes in one run are then not noticed
        yield
        return
    with explain_os_errors(run.folder):
        file = (run.folder / ".lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another process is working in '{run.folder}'",
                fix="wait for it to end, or start a new run",
            ) from error
        except OSError:  # a network file system without locks: as on Windows
            pass
        yield


def write_text(path: Path, text: str) -> None:
    """Replace a file's content as a whole: a reader sees the old text or the new, never a part.

    Raises:
        ResourceError: disk full, no permission.
    """
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """`write_text` of one JSON record a line."""
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def read_json(path: Path) -> Any:
    """A JSON file of a run.

    Raises:
        RunError: missing or damaged.
    """
    with _explain_unread(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[Any]:
    """All records of a JSON-lines file; a last line cut off by a crash is left out.

    Raises:
        RunError: missing or damaged.
    """
    records = []
    with _explain_unread(path):
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines):
            try:
                if line:
                    records.append(json.loads(line))
            except json.JSONDecodeError:
                if number != len(lines) - 1:
                    raise
    return records


@contextlib.contextmanager
def _explain_unread(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(
            f"'{path}' is missing from its run", fix="run the ladder again, or give another run"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise RunError(
            f"'{path}' cannot be read ({error})", fix="restore it, or run the ladder again"
        ) from error


@contextlib.contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn what code raises that meets other content in `path` than was saved into one sentence.

    Raises:
        RunError: a key is missing, a value is of another type, a file is gone or cut off.
    """
    try:
        yield
    except FituneError:
        raise
    except Exception as error:
        known = (LookupError, TypeError, ValueError, AttributeError, OSError)
        if not isinstance(error, known) and type(error).__name__ != "SafetensorError":
            raise
        what = (str(error).splitlines() or [""])[0][:200]
        raise RunError(
            f"'{path}' is damaged ({type(error).__name__}: {what})",
            fix="restore it, or start a new run",
        ) from error


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder` only once the block ends well.

    Raises:
        ResourceError: disk full, no permission.
    """
    with explain_os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            for path in (partial, *partial.rglob("*")):  # a folder's names need it as well
                _sync(path)
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    """Make what a file holds, or which names a folder does, survive a power cut."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders, and writes names by itself
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_ADVICE = {
    errno.ENOSPC: ("the disk is full", "free some space there, then go on with --resume"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then go on with --resume"),
    errno.EFBIG: (
        "the file would be larger than this process may write",
        "raise the limit (ulimit -f), then go on with --resume",
    ),
    errno.EACCES: ("permission is denied", "change its permissions, or set `output` elsewhere"),
    errno.EROFS: ("the file system is read-only", "set `output` to a folder that can be written"),
    errno.ENOTDIR: ("a file stands where a folder should be", "move it, or set `output` elsewhere"),
    errno.EEXIST: ("a file stands where a folder should be", "move it, or set `output` elsewhere"),
}


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says while writing `path` into one clear sentence.

    Raises:
        ResourceError: for any OSError inside the block.
    """
    try:
        yield
    except OSError as error:
        raise _refusal(path, error.errno or 0, error.strerror or str(error)) from error
    except Exception as error:
        # safetensors and tokenizers report it through exceptions of their own, without an errno.
        said = re.search(r"\(os error (\d+)\)", str(error))
        if said is None or isinstance(error, FituneError):
            raise
        number = int(said[1])
        raise _refusal(path, number, os.strerror(number)) from error


def _refusal(path: Path, number: int, said: str) -> ResourceError:
    what, fix = _ADVICE.get(number, (said, "check the disk and the folder"))
    return ResourceError(f"'{path}' cannot be written: {what}", fix=fix)
