"""Whether the options of prompting fit the task, and what they stand for.

Knows options, labels and schema files; knows nothing of models or rows.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fitune.approaches.base import Work
from fitune.config.prompting import Asking, FewShot
from fitune.errors import ConfigError
from fitune.inference.constrained import grammar

_FOR_CLASSIFY: tuple[str, ...] = ("show_labels", "label_words", "normalize", "calibrate")
_FOR_GENERATE: tuple[str, ...] = ("stop", "choices", "json_schema")


def refuse_unfit(options: Asking, work: Work) -> None:
    """Refuse what would have no effect, or contradicts another option.

    Raises:
        ConfigError: an option for another kind of task or another way of choosing examples.
    """
    given = {
        name
        for name, field in type(options).model_fields.items()
        if getattr(options, name) != field.default
    }
    kind, needed, foreign = "generate", "classify", _FOR_CLASSIFY
    if work.labels:
        kind, needed, foreign = "classify", "generate", _FOR_GENERATE
    for name in foreign:
        if name in given:
            raise ConfigError(
                f"{name} is for tasks of kind {needed}, and this one's kind is {kind}",
                fix=f"remove {name}",
            )
    for name in ("stop", "json_schema"):
        if options.choices and name in given:
            raise ConfigError(
                f"choices and {name} are both given, and an answer that is chosen is not written",
                fix=f"remove one of choices and {name}",
            )
    if options.stop and options.json_schema is not None:
        raise ConfigError(
            "stop and json_schema are both given, and a stop string could cut JSON in the middle",
            fix="remove stop: an answer under a schema ends where its JSON does",
        )
    if twice := _twice(options.choices):
        raise ConfigError(f"choices holds '{twice}' twice", fix="name each choice once")
    if isinstance(options, FewShot):
        _refuse_unfit_selection(options, work, given)


def _refuse_unfit_selection(options: FewShot, work: Work, given: set[str]) -> None:
    nearest = options.select == "nearest"
    if not nearest:
        for name in ("retriever", "candidates"):
            if name in given:
                raise ConfigError(
                    f"{name} is for select: nearest, and select is {options.select}",
                    fix=f"set select: nearest, or remove {name}",
                )
        if (options.order or "").startswith("similar"):
            raise ConfigError(
                f"order is {options.order}, and with select: {options.select} the same examples "
                "are shown to every question, similar or not",
                fix="set select: nearest, or order: random or label",
            )
    if options.encoder and (options.select == "balanced" or options.retriever == "bm25"):
        why = "retriever: bm25 compares words" if nearest else "select: balanced compares nothing"
        raise ConfigError(
            f"encoder is '{options.encoder}', and {why}", fix="remove encoder, or change the other"
        )
    if nearest and (options.normalize == "pmi" or options.calibrate == "contextual"):
        name = "normalize: pmi" if options.normalize == "pmi" else "calibrate: contextual"
        raise ConfigError(
            f"{name} asks a question without content, and nothing is similar to it",
            fix="use calibrate: batch, or select: balanced or diverse",
        )
    if options.candidates and not work.labels:
        raise ConfigError(
            "candidates is for tasks of kind classify, and this one's kind is generate",
            fix="remove candidates",
        )
    if nearest and options.calibrate == "batch" and options.candidates != "all":
        raise ConfigError(
            "calibrate: batch compares all labels, and candidates: shown leaves most out",
            fix="set candidates: all, or calibrate: none",
        )


def words_of(labels: Sequence[str], given: Mapping[str, str] | None) -> tuple[str, ...]:
    """What is said in place of each label: as given, else the label with spaces for underscores
    (where that leaves all of them different).

    Raises:
        ConfigError: words for what is no label, or the same for two labels.
    """
    given = given or {}
    for name in given:
        if name not in labels:
            near = difflib.get_close_matches(name, labels, n=1)
            raise ConfigError(
                f"label_words has words for '{name}', which is none of the {len(labels):,} labels",
                fix=f"did you mean '{near[0]}'" if near else "remove it",
            )
    spaced = [given.get(label, label.replace("_", " ").strip() or label) for label in labels]
    words = spaced if not _twice(spaced) else [given.get(label, label) for label in labels]
    if twice := _twice(words):
        raise ConfigError(
            f"label_words leaves two labels with the words '{twice}'",
            fix="give each label words of its own",
        )
    return tuple(words)


def schema_of(given: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The JSON Schema that was given, or that stands in the file that was named.

    Raises:
        ConfigError: there is no such file, it is not JSON, or it cannot be enforced.
        MissingExtraError: llguidance is not installed.
    """
    if given is None:
        return None
    schema = _read(Path(given)) if isinstance(given, str) else dict(given)
    grammar(schema)
    return schema


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"json_schema '{path}' cannot be read ({error.strerror})", fix="name a JSON file"
        ) from error
    except ValueError as error:
        raise ConfigError(f"json_schema '{path}' is not JSON ({error})", fix="mend it") from error
    if not isinstance(read, dict):
        raise ConfigError(
            f"json_schema '{path}' holds a {type(read).__name__}, and a schema is an object",
            fix='begin with {"type": "object"}',
        )
    return read


def _twice(texts: Sequence[str]) -> str | None:
    return next((text for at, text in enumerate(texts) if text in texts[:at]), None)
