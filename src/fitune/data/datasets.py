"""Parquet files, saved dataset folders and Hub ids, through pyarrow and datasets.

Knows those two libraries, imported when used; knows nothing of what columns mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fitune.data.table import Record, Table, expand
from fitune.errors import ConfigError, DataError, MissingExtraError

HUB = "hub:"


def read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", extra="data", purpose="reading Parquet files") from None
    try:
        with path.open("rb") as file:
            table = parquet.read_table(file)
        rows = table.to_pylist()
        names = _class_names(table.schema.metadata or {})
    except (arrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({_first_line(error)})", fix="write it again"
        ) from None
    return _numbered(rows, str(path), names)


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Names of class labels, which `datasets` keeps beside the schema of its Parquet files."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _numbered(rows: list[dict[str, Any]], name: str, classes: dict[str, list[str]]) -> Table:
    records = []
    for number, row in enumerate(rows, start=1):
        for column, names in classes.items():
            index = row.get(column)
            if isinstance(index, int):  # -1 means that the row has no label
                row[column] = names[index] if 0 <= index < len(names) else None
        records.append(Record(row, f"{name}:{number}"))
    return Table(tuple(records))


def saved_dataset(where: str) -> tuple[Path, str | None] | None:
    """The folder and the split asked for, if `where` is a folder that `datasets` saved."""
    folder, _, split = where.rpartition(":")
    for path, part in ((expand(where), None), (expand(folder), split)):
        if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return path, part
    return None


def _datasets(purpose: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", extra="data", purpose=purpose) from None
    return datasets


def read_saved(path: Path, part: str | None, *, split: str) -> Table:
    datasets = _datasets("reading a saved dataset folder")
    try:
        loaded = datasets.load_from_disk(str(path))
    except PermissionError:
        raise
    except Exception as error:  # the library raises whatever its file readers raise
        raise DataError(
            f"{path} is not a whole saved dataset ({_first_line(error)})",
            fix="save it again with datasets.save_to_disk",
        ) from None
    return _from_datasets(loaded, str(path), part, split)


def read_hub(where: str, *, download: bool, split: str) -> Table:
    if not download:
        raise ConfigError(
            f"{where} would be fetched from the Hugging Face Hub, and downloads are not allowed",
            fix="set download: true in the task file, or name a local file",
        )
    name, _, part = where.removeprefix(HUB).partition(":")
    pieces = name.split("/")
    if not 1 <= len(pieces) <= 3 or not all(pieces):
        raise ConfigError(
            f"{where} is not the id of a dataset", fix="write hub:ORG/NAME or hub:ORG/NAME:SPLIT"
        )
    datasets = _datasets("reading a dataset from the Hub")
    try:
        loaded = datasets.load_dataset("/".join(pieces[:2]), *pieces[2:])
    except Exception as error:  # no connection, no such id, no permission: a type for each
        raise DataError(
            f"{where} could not be fetched ({_first_line(error)})",
            fix="check the name, the connection and your login, or name a local file",
        ) from None
    return _from_datasets(loaded, HUB + name, part or None, split)


def _from_datasets(loaded: Any, name: str, part: str | None, split: str) -> Table:
    notes: tuple[str, ...] = ()
    if hasattr(loaded, "keys"):  # several splits
        have = list(loaded)
        wanted = part or (split if split in have or len(have) != 1 else have[0])
        if wanted not in have:
            raise DataError(
                f"{name} has no split {wanted!r} (it has {', '.join(have) or 'none'})",
                fix=f"write {name}:SPLIT with one of its splits",
            )
        if part is None and len(have) > 1:
            notes = (f"{name}: the split {wanted!r} of {', '.join(have)}",)
        loaded, name = loaded[wanted], f"{name}:{wanted}"
    elif part is not None and part != str(loaded.split):
        raise DataError(
            f"{name} is a single split ({loaded.split}), not {part!r}", fix=f"write {name}"
        )
    # Pictures and sounds are not text, and decoding them needs packages of their own.
    media = [c for c, f in loaded.features.items() if type(f).__name__ in _MEDIA]
    loaded = loaded.remove_columns(media).with_format(None)
    classes = {c: f.names for c, f in loaded.features.items() if type(f).__name__ == "ClassLabel"}
    table = _numbered(loaded.to_list(), name, classes)
    return Table(table.records, notes)


_MEDIA = ("Image", "Audio", "Video", "Pdf")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
