"""What a call of fitune says when it cannot go on.

Knows exceptions and exit codes; knows nothing of verbs. A traceback is never shown (unless
FITUNE_DEBUG=1): a user's mistake needs a sentence, and a fault of fitune's own needs a file that
can be attached to a bug report.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from fitune.errors import FituneError, Interrupted, ResourceError

REFUSALS = {
    errno.ENOSPC: ("no space is left on the disk", "free some space, or set `output` elsewhere"),
    errno.EDQUOT: ("your disk quota is used up", "free some space, or set `output` elsewhere"),
    errno.EACCES: ("permission is denied", "give yourself access, or choose another place"),
    errno.EPERM: (
        "the operation is not permitted",
        "give yourself access, or choose another place",
    ),
    errno.EROFS: ("the file system is read-only", "choose another place"),
    errno.EMFILE: ("too many files are open", "raise the limit: ulimit -n 4096"),
}


def report(error: BaseException, words: Sequence[str]) -> int:
    """Print what went wrong to stderr and return the exit code.

    Args:
        words: the words after `fitune`, for the bug report.
    """
    if os.environ.get("FITUNE_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, Interrupted):
        return _say(str(error), Interrupted.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _say("Stopped.", Interrupted.exit_code)
    known = error if isinstance(error, FituneError) else _as_resource_error(error)
    if known is not None:
        return _say(f"error: {known}", known.exit_code)
    what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return _say(
        f"error: this is a bug in fitune ({what}); please report it with {_write(error, words)}.", 1
    )


def _as_resource_error(error: BaseException) -> ResourceError | None:
    """What the machine refused, where that is what happened."""
    if isinstance(error, OSError) and error.errno in REFUSALS:
        problem, fix = REFUSALS[error.errno]
        return ResourceError(
            f"{problem}" + (f": {error.filename}" if error.filename else ""), fix=fix
        )
    # torch raises OutOfMemoryError on CUDA and a plain RuntimeError on CPU; it is not imported
    # here just to ask.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    ):
        return ResourceError(
            "the machine has not enough free memory for this",
            fix="lower micro_batch_tokens or max_length, choose a smaller model, or close programs",
        )
    return None


def _say(sentence: str, code: int) -> int:
    """Print on one line, whatever control characters a quoted value holds."""
    shown = (c if c.isprintable() else " " if c.isspace() else "�" for c in sentence)
    print("".join(shown), file=sys.stderr)
    return code


def _write(error: BaseException, words: Sequence[str]) -> str:
    """Save the traceback and say where; on the screen after all if it cannot be saved."""
    text = f"fitune {' '.join(words)}\nPython {sys.version}\n\n" + "".join(
        traceback.format_exception(error)
    )
    try:
        handle, path = tempfile.mkstemp(prefix="fitune-bug-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
        return "the text above"
    return path
