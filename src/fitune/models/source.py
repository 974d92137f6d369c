"""Where a model comes from: a packaged name, a folder, a GGUF file or a Hub id.

Knows files; knows nothing of tasks, and loads no weights (a GGUF file is converted once, into a
cache, so that everything above sees one kind of thing: a folder or a Hub id).
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fitune.errors import MissingExtraError, ModelError, ResourceError
from fitune.models.catalogue import PACKAGED

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded.

    Attributes:
        name: as the user wrote it.
        location: a folder with `config.json` and safetensors files; for a Hub id, of the local
            Hub cache, which `resolve_source` filled if it was allowed to.
        trust_remote_code: whether the model's own Python code may run.
        hub_id: the Hub id of a folder in the local Hub cache; None for others.
    """

    name: str
    location: str
    trust_remote_code: bool = False
    hub_id: str | None = None

    @property
    def folder(self) -> Path:
        return Path(self.location)

    def loading_options(self) -> dict[str, bool]:
        """The keyword arguments that every `from_pretrained` call must be given."""
        return {"local_files_only": True, "trust_remote_code": self.trust_remote_code}


def resolve_source(
    name: str, *, download: bool = False, trust_remote_code: tuple[str, ...] = ()
) -> ModelSource:
    """Find the model called `name`.

    Raises:
        ModelError: nothing by that name, a folder without a model, or a Hub id that is neither
            in the local cache nor may be fetched.
        MissingExtraError: a GGUF file without the `gguf` package.
    """
    trusted = name in trust_remote_code
    if name in PACKAGED:
        packaged = packaged_file(name)
        if packaged is None:
            raise ModelError(
                f"model '{name}' comes with the package '{PACKAGED[name].package}', which is not "
                "installed",
                fix=PACKAGED[name].install,
            )
        return ModelSource(name, str(_as_folder(packaged)), trusted)
    path = Path(name).expanduser()
    if path.exists():
        return ModelSource(name, str(_as_folder(path)), trusted)
    if _HUB_ID.fullmatch(name) and not path.parent.is_dir():
        folder = _fetched(name, code=trusted) if download else _cached(name)
        return ModelSource(name, str(folder), trusted, hub_id=name)
    near = difflib.get_close_matches(name, PACKAGED, n=1)
    known = f"did you mean '{near[0]}'? Known" if near else "known"
    raise ModelError(
        f"there is no model '{name}': it is neither a file or folder, nor a packaged name, "
        "nor a Hub id of the form ORG/NAME",
        fix=f"{known} names are {', '.join(PACKAGED)}",
    )


def _cached(hub_id: str) -> Path:
    """The folder of a Hub model that was fetched before.

    Looked up as a file: even with `local_files_only`, the Hub's client asks the network for the
    names of programs that it reports as its users.
    """
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json")
    if not isinstance(config, str) or not list(Path(config).parent.glob("*.safetensors")):
        raise ModelError(
            f"model '{hub_id}' is a Hub id and is not in the local cache",
            fix="set `download: true` in the task file (or --set download=true) to fetch it",
        )
    return Path(config).parent


def _fetched(hub_id: str, *, code: bool) -> Path:
    """The folder of a Hub model in the local cache, after fetching what is missing or newer.

    Everything but weights in unsafe formats and, unless asked for, Python code.
    """
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", *(["*.py"] if code else [])]
    try:
        return _as_folder(Path(snapshot_download(hub_id, allow_patterns=wanted)))
    except ModelError:
        raise
    except Exception as error:  # the Hub's client raises errors of several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model '{hub_id}' cannot be fetched from the Hub ({reason[:200]})",
            fix="check the id, the network and, for a gated model, `hf auth login`",
        ) from error


def cache_folder() -> Path:
    """Where converted models are kept: `$FITUNE_CACHE`, else `~/.cache/fitune`."""
    return Path(os.environ.get("FITUNE_CACHE") or Path.home() / ".cache" / "fitune").absolute()


def packaged_file(name: str) -> Path | None:
    """The file of a packaged model, None where its package is not installed.

    Looked up in the package's record, without importing (so running) the package.
    """
    packaged = PACKAGED[name]
    try:
        distribution = importlib.metadata.distribution(packaged.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(packaged.file)))
    return path if path.is_file() else None


def _as_folder(path: Path) -> Path:
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _convert_gguf(path)
    # Absolute, since adapters note where their base is and are read from other folders.
    folder = (path.parent if path.name == "config.json" else path).absolute()
    if not folder.is_dir():
        raise ModelError(
            f"'{path}' is not a model: it is a single file that is not GGUF",
            fix="give the folder that holds config.json, or a .gguf file",
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"the folder '{folder}' holds no model: there is no config.json in it",
            fix="give the folder that `save_pretrained` wrote",
        )
    if not list(folder.glob("*.safetensors")):
        unsafe = sorted(p.name for p in folder.glob("*.bin")) + sorted(
            p.name for p in folder.glob("*.pt")
        )
        found = (
            f"only {', '.join(unsafe[:2])}, which can run code when opened" if unsafe else "none"
        )
        raise ModelError(
            f"the folder '{folder}' has no .safetensors weights ({found})",
            fix="save the model again with `save_pretrained`, which writes safetensors",
        )
    return folder


def _convert_gguf(path: Path) -> Path:
    """Dequantize a GGUF file once into a folder of the cache, named by the file's content."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(
                    f"'{path}' is not a GGUF file: its first four bytes are not 'GGUF'",
                    fix="download it again, or give another file",
                )
            file.seek(0)
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except PermissionError as error:
        raise ResourceError(f"'{path}' may not be read", fix="change its permissions") from error
    folder = cache_folder() / "models" / f"{path.stem}-{digest.hexdigest()[:16]}"
    if (folder / "config.json").is_file():
        return folder
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("gguf", extra="models", purpose="reading GGUF files") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from fitune.models.quiet import quiet

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    except OSError as error:
        raise ResourceError(
            f"the cache '{folder.parent}' cannot be written ({error.strerror})",
            fix="set FITUNE_CACHE to a folder with a few gigabytes free",
        ) from error
    try:
        # transformers reports the conversion by a bar of its own on stderr.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                # Without this the loaded model refuses training and saving.
                quantization_config=GgufConfig(dequantize=True),
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        partial.replace(folder)
    except Exception as error:  # a damaged file fails in many ways
        if (folder / "config.json").is_file():  # another process finished first
            return folder
        if isinstance(error, OSError) and error.errno:
            raise ResourceError(
                f"'{path}' could not be converted into '{folder}' ({error})",
                fix="free disk space there or set FITUNE_CACHE to another folder",
            ) from error
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"'{path}' cannot be converted ({first[:200]})",
            fix="get the file again, or use the model's safetensors folder instead",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
