"""A model known by its config alone: a name or a file → a transformers config.

Knows where configs are found, and reads no weights; knows nothing of what is asked of the model.
Only a Hub id that is neither bundled nor in the local cache reaches for the network, and then for
its config.json only.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitune.errors import FituneError, MissingExtraError, ModelError
from fitune.models.bundled import BundledModel, bundled_config, find_bundled, near_names
from fitune.models.catalogue import PACKAGED
from fitune.models.gguf_header import read_gguf_header
from fitune.models.pooling import Pooling, PoolingMode, read_pooling
from fitune.models.shapes import (
    PARAMETER_FILE,
    Shapes,
    parse_parameter_file,
    read_json,
    read_safetensors_shapes,
)
from fitune.models.source import packaged_file

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

PATIENCE = 10
"""Seconds to wait for the Hub's first answer."""

NEEDED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)
"""Fields without which transformers builds another model: the one its defaults describe."""


@dataclass(frozen=True)
class ConfiguredModel:
    """A model whose weights need not be there.

    Attributes:
        name: as the user wrote it.
        origin: where the config is from, for people.
        config: of transformers; None where only the tensors' shapes are known.
        shapes: of the tensors, where there is no config.
        pooling: how an encoder's vectors were pooled in training; None for other models.
        stated: how many parameters its makers, or its file, say it has; None where nobody does.
        notes: what the reader of a figure should know.
    """

    name: str
    origin: str
    config: Any | None
    shapes: Shapes | None = None
    pooling: Pooling | None = None
    stated: int | None = None
    notes: tuple[str, ...] = ()


def configured_model(name: str) -> ConfiguredModel:
    """The model called `name`: packaged, a file or folder, in the bundled catalogue, or on the Hub.

    Raises:
        ModelError: there is none, or no config can be made of what there is.
        ResourceError: a file may not be read.
        MissingExtraError: a GGUF file without the `gguf` package.
    """
    name = name.strip()
    packaged = packaged_file(name) if name in PACKAGED else None
    if packaged is not None:
        found = _from_path(packaged, name)
        return dataclasses.replace(found, origin=f"the package {PACKAGED[name].package}")
    path = Path(name).expanduser()
    if name and path.exists():
        return _from_path(path, name)
    bundled = find_bundled(name)
    if bundled is not None:
        return _from_catalogue(bundled, name)
    if _HUB_ID.fullmatch(name) and not path.parent.is_dir() and not _is_file_name(path):
        return _from_hub(name)
    raise _unknown(name, path)


def _from_catalogue(model: BundledModel, name: str) -> ConfiguredModel:
    modes: dict[str, PoolingMode] = {"mean": "mean", "cls": "cls"}
    pooling = Pooling(modes[model.pooling], normalize=True) if model.pooling else None
    return ConfiguredModel(
        name,
        origin="the bundled catalogue"
        + ("" if name.lower() == model.id.lower() else f", as {model.id}"),
        config=bundled_config(model),
        pooling=pooling,
        stated=model.parameters,
        notes=(model.note,) if model.note else (),
    )


def _from_path(path: Path, name: str) -> ConfiguredModel:
    suffix = path.suffix.lower()
    if path.is_dir() or path.name == "config.json":
        return _from_folder(path if path.is_dir() else path.parent, name)
    if suffix == ".gguf":
        return _from_gguf(path, name)
    if suffix == ".safetensors":
        return _from_safetensors(path, name)
    if suffix == ".json":
        record = read_json(path)
        if isinstance(record, dict) and "model_type" in record:
            config, notes = parse_config(record, name)
            return ConfiguredModel(name, f"the config {path.name}", config, notes=notes)
        return _weights_only(name, "a parameter file", parse_parameter_file(record, path))
    raise ModelError(
        f"'{path}' is no model that can be estimated",
        fix="give a folder with config.json, a .gguf or .safetensors file, or a parameter file "
        f"(.json: {PARAMETER_FILE})",
    )


def _from_folder(folder: Path, name: str) -> ConfiguredModel:
    file = folder / "config.json"
    if not file.is_file():
        adapter = folder / "adapter_config.json"
        base = read_json(adapter).get("base_model_name_or_path") if adapter.is_file() else None
        raise ModelError(
            f"the folder '{folder}' holds "
            + ("an adapter and no model" if base else "no config.json"),
            fix=f"estimate its base, {base}" if base else "give the folder that holds config.json",
        )
    config, notes = parse_config(read_json(file), name)
    return ConfiguredModel(
        name, f"the config in {folder}", config, pooling=read_pooling(folder), notes=notes
    )


def _from_gguf(path: Path, name: str) -> ConfiguredModel:
    """The config that transformers makes of a GGUF file's settings."""
    header = read_gguf_header(path)
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("gguf", extra="models", purpose="reading GGUF files") from error
    from transformers import AutoConfig

    from fitune.models.quiet import quiet

    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            (Path(folder) / "header.gguf").write_bytes(header.small_file())
            config = AutoConfig.from_pretrained(folder, gguf_file="header.gguf")
    except Exception as error:  # fields that are missing or strange fail in many ways
        raise ModelError(
            f"'{path}' is of no architecture that transformers reads from GGUF ({_reason(error)})",
            fix="give the folder of the model's config.json instead",
        ) from error
    if not any(field.endswith(".vocab_size") for field in header.fields):
        config.vocab_size = header.lengths.get("tokenizer.ggml.tokens", config.vocab_size)
    return ConfiguredModel(
        name, origin="the header of a GGUF file", config=config, stated=header.parameters
    )


def _from_safetensors(path: Path, name: str) -> ConfiguredModel:
    if (path.parent / "config.json").is_file():
        return _from_folder(path.parent, name)
    return _weights_only(name, "the header of a safetensors file", read_safetensors_shapes(path))


def _weights_only(name: str, origin: str, shapes: Shapes) -> ConfiguredModel:
    return ConfiguredModel(
        name,
        origin,
        config=None,
        shapes=shapes,
        stated=sum(math.prod(shape) for shape in shapes.values()),
        notes=(
            "No config, so what passes through the model is not known: activations, logits and "
            "cached keys and values come on top of these figures.",
        ),
    )


def _from_hub(name: str) -> ConfiguredModel:
    """From the local cache, else config.json alone from the Hub."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        found = _from_folder(Path(cached).parent, name)
        return dataclasses.replace(found, origin="config.json in the local Hub cache")
    config, notes = parse_config(read_json(_fetched(name)), name)
    return ConfiguredModel(name, "config.json from the Hub", config, notes=notes)


def _fetched(name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import get_session

    from fitune.models.quiet import quiet

    hint = _hint(near_names(name))
    hint = f"{hint}? otherwise " if hint else ""
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"'{name}' is a Hub id that is neither bundled nor in the local cache, and "
            "HF_HUB_OFFLINE forbids to fetch it",
            fix=f"{hint}give a folder that holds its config.json, or unset HF_HUB_OFFLINE",
        )
    voice = logging.getLogger("huggingface_hub")
    level = voice.level
    voice.setLevel(logging.CRITICAL)
    try:
        with quiet():
            # Asked for once by hand: without a network the client tries again for half a minute.
            get_session().head(hf_hub_url(name, "config.json"), timeout=PATIENCE)
            return Path(hf_hub_download(name, "config.json"))
    except Exception as error:  # the Hub's client raises errors of several libraries
        raise ModelError(
            f"the config of '{name}' cannot be fetched from the Hub ({_reason(error)})",
            fix=f"{hint}check the id, the network and, for a gated model, `hf auth login`, or give "
            "a folder that holds its config.json",
        ) from error
    finally:
        voice.setLevel(level)


def parse_config(record: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """A transformers config from what a config.json holds, and notes about it.

    No code that comes with a model is run. Of a model that also sees or hears, the config of the
    part that reads and writes.

    Raises:
        ModelError: it is of no family that transformers knows, lacks fields or holds wrong ones.
    """
    from transformers import CONFIG_MAPPING, __version__

    from fitune.models.quiet import quiet

    family = record.get("model_type") if isinstance(record, dict) else None
    if not isinstance(family, str):
        raise ModelError(
            f"the config of '{name}' does not say its model_type",
            fix="give the config.json that `save_pretrained` wrote",
        )
    if family not in CONFIG_MAPPING:
        if "auto_map" in record:
            raise ModelError(
                f"'{name}' is of the family '{family:.60}', which comes as Python code of its own, "
                "and an estimate runs nobody's code",
                fix="estimate a model of the same shape whose family transformers knows",
            )
        near = difflib.get_close_matches(family, CONFIG_MAPPING, n=2)
        raise ModelError(
            f"transformers {__version__} does not know '{family:.60}', the family of '{name}'",
            fix=f"did you mean {' or '.join(near)}? "
            if near
            else "pip install --upgrade transformers",
        )
    try:
        with quiet():
            config = CONFIG_MAPPING[family].from_dict(record)
            text = config.get_text_config()
    except Exception as error:  # each field has checks of its own
        raise ModelError(
            f"the config of '{name}' is not sound ({_reason(error)})", fix="correct its config.json"
        ) from error
    if not getattr(text, "vocab_size", None):
        raise ModelError(
            f"'{name}' ({family}) is no language model: its config has no vocabulary",
            fix="give a model that reads text",
        )
    if text is config:
        _check_fields(config, record, name)
    return text, (*_parts_left_out(config, text), *_without_quantization(config, text))


def _check_fields(config: Any, record: dict[str, Any], name: str) -> None:
    spelt = {field: config.attribute_map.get(field, field) for field in NEEDED}
    there = {field: key for field, key in spelt.items() if hasattr(config, field)}
    lacking = [key for field, key in there.items() if field not in record and key not in record]
    if lacking:
        raise ModelError(
            f"the config of '{name}' lacks {' and '.join(lacking)}",
            fix=f"add {'them' if len(lacking) > 1 else 'it'} to its config.json",
        )
    for field, key in there.items():
        value = getattr(config, field)
        if isinstance(value, int) and value < 1:
            raise ModelError(
                f"{key} is {value} in the config of '{name}', and must be above 0",
                fix="correct its config.json",
            )


def _parts_left_out(config: Any, text: Any) -> tuple[str, ...]:
    if text is config:
        return ()
    return (
        "Figures are of the part that reads and writes text; other parts, such as a vision tower, "
        "are left out.",
    )


def _without_quantization(config: Any, text: Any) -> tuple[str, ...]:
    """Take out how weights are stored on the Hub: estimates say themselves how they are held."""
    stored = getattr(config, "quantization_config", None)
    for each in (config, text):
        if getattr(each, "quantization_config", None) is not None:
            del each.quantization_config
    if not stored:
        return ()
    method = stored.get("quant_method", "quantized") if isinstance(stored, dict) else "quantized"
    return (f"Its weights are stored as {method}; figures are of weights as the options say.",)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200]


def _is_file_name(path: Path) -> bool:
    return path.suffix.lower() in (".json", ".gguf", ".safetensors", ".bin", ".pt")


def _unknown(name: str, path: Path) -> FituneError:
    if _is_file_name(path) or name.startswith(("/", ".", "~")):
        return ModelError(f"there is no file or folder '{name}'", fix="check the path")
    near = [*difflib.get_close_matches(name.lower(), PACKAGED, n=1), *near_names(name)]
    return ModelError(
        f"there is no model '{name:.80}': it is neither a file or folder, nor in the catalogue, "
        "nor a Hub id of the form ORG/NAME",
        fix=_hint(near)
        or "give a folder that holds config.json, or see what the catalogue has with "
        "`fitune estimate --budget 24GiB`",
    )


def _hint(near: Sequence[str]) -> str:
    return f"did you mean {', '.join(near[:3])}" if near else ""
