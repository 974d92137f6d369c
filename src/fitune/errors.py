"""What can go wrong, and how the user mends it.

    FituneError                 any error fitune raises on purpose; exit code 2
    ├── ConfigError             a task file, an option or a name is wrong
    ├── DataError               rows cannot be read, or cannot be learned from
    ├── ModelError              a model is not there, not loadable, or of the wrong kind
    ├── TrainingError           training cannot go on (nothing to learn, not a number, …)
    ├── RunError                a run folder is missing, damaged, in use, or of another task
    ├── ResourceError           the machine refuses: disk, memory, permission
    └── MissingExtraError       a package of an optional extra is not installed

    Interrupted                 Ctrl-C or SIGTERM: work is saved; exit code 130

Knows nothing of who raises or prints them. Every error is one sentence with the value and the
limit (`problem`) followed by what to do about it (`fix`).
"""

from __future__ import annotations


class FituneError(Exception):
    """One clear sentence for the user: what is wrong with which value, then how to mend it.

    Args:
        problem: names the value and the limit, without a full stop at its end.
        fix: an instruction the user can follow, without a full stop at its end.
    """

    exit_code = 2

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem.rstrip(".")
        self.fix = fix.rstrip(".")

    def __str__(self) -> str:
        return f"{self.problem}; {self.fix}."


class ConfigError(FituneError):
    """A task file, an option or a name is wrong."""


class DataError(FituneError):
    """Rows cannot be read, or cannot be learned from."""


class ModelError(FituneError):
    """A model is not there, cannot be loaded, or is of the wrong kind for the task."""


class TrainingError(FituneError):
    """Training cannot start or go on."""


class RunError(FituneError):
    """A run folder is missing, damaged, in use, or belongs to another task."""


class ResourceError(FituneError):
    """The machine refuses: no disk space, no memory, no permission."""


class MissingExtraError(FituneError):
    """A package of an optional extra is not installed.

    Args:
        package: the import name that is missing.
        extra: the extra of fitune that brings it, e.g. ``"data"``.
        purpose: what it is needed for, e.g. ``"reading Parquet files"``.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            fix=f"pip install 'fitune[{extra}]'",
        )


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived; everything up to the last completed step is saved.

    Args:
        resume: the command that goes on from here.
    """

    exit_code = 130

    def __init__(self, resume: str) -> None:
        super().__init__(resume)
        self.resume = resume

    def __str__(self) -> str:
        return f"Stopped; the work so far is saved. Go on with: {self.resume}"
