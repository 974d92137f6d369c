"""What `import fitune` offers; a change here is a change for users."""

from __future__ import annotations

import fitune

NAMES = [
    "Callback",
    "ConfigError",
    "DataError",
    "FituneError",
    "Interrupted",
    "MissingExtraError",
    "ModelError",
    "ResourceError",
    "RunError",
    "Task",
    "TrainingError",
    "check",
    "doctor",
    "estimate",
    "evaluate",
    "ladder",
    "lm",
    "load",
    "plan",
    "profile",
    "tune",
]


def test_the_public_names() -> None:
    assert sorted(fitune.__all__) == NAMES


def test_every_name_is_there_documented_and_listed() -> None:
    for name in NAMES:
        assert getattr(fitune, name).__doc__, name
    assert set(NAMES) <= set(dir(fitune))


def test_every_verb_is_a_public_function() -> None:
    from fitune.cli import VERBS

    assert set(VERBS) <= set(NAMES)
