"""What tensors a file says it has: names and shapes, without their values.

Knows the header of a safetensors file (github.com/huggingface/safetensors, "Format") and fitune's
own parameter files; knows nothing of architectures.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitune.errors import ModelError, ResourceError

Shapes = Mapping[str, tuple[int, ...]]
"""Name → shape; a parameter file that says only how many there are has one of one dimension."""

LARGEST_HEADER = 100_000_000
"""Bytes, as in the safetensors library."""

PARAMETER_FILE = '{"NAME": [ROWS, COLUMNS], …} or {"parameters": COUNT}'


def read_safetensors_shapes(path: Path) -> Shapes:
    """The tensors of a safetensors file, from its header alone.

    Raises:
        ModelError: it is no safetensors file, or cut off.
        ResourceError: it may not be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            (length,) = struct.unpack("<Q", start)
            raw = file.read(length) if length <= LARGEST_HEADER else b""
        header = json.loads(raw)
        return {
            name: tuple(int(size) for size in entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except PermissionError as error:
        raise _forbidden(path) from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the header of '{path}' is not that of a safetensors file, or it is cut off",
            fix="get the file again, or give another",
        ) from error


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        ModelError: it is no JSON.
        ResourceError: it may not be read.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _forbidden(path) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"'{path}' is not JSON ({error!s:.100})", fix="get the file again, or correct it"
        ) from error


def parse_parameter_file(record: Any, path: Path) -> Shapes:
    """Shapes from what a parameter file holds: see `PARAMETER_FILE`.

    Raises:
        ModelError: it holds something else.
    """
    if (
        isinstance(record, dict)
        and list(record) == ["parameters"]
        and _is_size(record["parameters"])
    ):
        return {"parameters": (record["parameters"],)}
    if isinstance(record, dict) and record:
        wrong = next((name for name, shape in record.items() if not _is_shape(shape)), None)
        if wrong is None:
            return {name: tuple(shape) for name, shape in record.items()}
        raise ModelError(
            f"'{path}' is taken as a parameter file, but '{wrong:.60}' has no shape in it",
            fix=f"write {PARAMETER_FILE}, or give a model's config.json",
        )
    raise ModelError(f"'{path}' holds no parameters", fix=f"write {PARAMETER_FILE}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**50


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_size, value))


def _forbidden(path: Path) -> ResourceError:
    return ResourceError(f"'{path}' cannot be read", fix="check the file and its permissions")
