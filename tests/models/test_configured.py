"""A model from its config alone: every kind of name, and what is refused in which words."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fitune.errors import FituneError, MissingExtraError, ModelError
from fitune.models import configured
from fitune.models.bundled import bundled_models, find_bundled
from fitune.models.catalogue import PACKAGED
from fitune.models.configured import configured_model
from fitune.models.source import packaged_file
from gguf_kit import VOCABULARY, write

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 500,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing here may reach for the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def config_in(folder: Path, record: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return str(folder)


# -- where configs are found -------------------------------------------------------------------


def test_a_folder_may_hold_nothing_but_a_config(tmp_path: Path) -> None:
    for name in (config_in(tmp_path / "m", LLAMA), str(tmp_path / "m" / "config.json")):
        found = configured_model(name)
        assert (found.name, found.config.hidden_size, found.shapes) == (name, 64, None)


def test_a_config_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(LLAMA))
    assert configured_model(str(tmp_path / "mine.json")).config.vocab_size == 500


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_packaged_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = find_bundled(name)
    assert bundled is not None
    if packaged_file(name) is not None:
        installed = configured_model(name)
        assert PACKAGED[name].package in installed.origin
        assert installed.config.hidden_size == bundled.config["hidden_size"]
        assert installed.config.num_hidden_layers == bundled.config["num_hidden_layers"]
    monkeypatch.setattr(configured, "packaged_file", lambda name: None)
    assert "catalogue" in configured_model(name).origin


@pytest.mark.parametrize(
    "name", ["llama-2-13b", "meta-llama/Llama-2-13b-hf", "META-LLAMA/llama-2-13B-chat-hf"]
)
def test_the_catalogue_by_id_and_alias(name: str) -> None:
    found = configured_model(name)
    assert found.config.num_hidden_layers == 40
    assert found.stated == 13_015_864_320
    assert "meta-llama/Llama-2-13b-hf" in (found.origin, name, *found.origin.split())


def test_pooling_comes_from_the_folder_or_the_catalogue(
    tiny_encoder: Path, tiny_decoder: Path
) -> None:
    folder = configured_model(str(tiny_encoder)).pooling
    assert folder is not None and (folder.mode, folder.max_length) == ("mean", 64)
    bundled = configured_model("BAAI/bge-small-en-v1.5").pooling
    assert bundled is not None and bundled.mode == "cls"
    assert configured_model(str(tiny_decoder)).pooling is None
    assert configured_model("bert-base-uncased").pooling is None


def test_safetensors_with_and_without_a_config(tmp_path: Path) -> None:
    file = tmp_path / "m" / "model.safetensors"
    file.parent.mkdir()
    save_file({"w": torch.zeros(30, 7), "b": torch.zeros(7)}, file)
    alone = configured_model(str(file))
    assert alone.config is None and alone.stated == 217
    assert dict(alone.shapes or {}) == {"w": (30, 7), "b": (7,)}
    assert "activations" in alone.notes[0]
    config_in(tmp_path / "m", LLAMA)
    assert configured_model(str(file)).config.hidden_size == 64


def test_a_parameter_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"parameters": 7000000000}')
    assert configured_model(str(tmp_path / "p.json")).stated == 7_000_000_000


def test_a_gguf_file_without_a_vocabulary_size(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = write(tmp_path / "m.gguf", architecture="qwen2", vocab_size=False)
    found = configured_model(str(path))
    assert (found.config.model_type, found.config.vocab_size) == ("qwen2", VOCABULARY)
    assert (found.config.num_hidden_layers, found.config.num_key_value_heads) == (3, 2)


def test_gguf_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    import sys

    path = write(tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError):
        configured_model(str(path))


def test_an_architecture_that_gguf_does_not_have(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = write(tmp_path / "m.gguf", architecture="nonesuch")
    with pytest.raises(ModelError, match="no architecture that transformers reads"):
        configured_model(str(path))


# -- the Hub -----------------------------------------------------------------------------------


class Answer:
    """Of the Hub's client; remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[Any]()

    def head(self, url: str, **_: Any) -> None:
        self.asked.append(url)

    def download(self, hub_id: str, file: str, **_: Any) -> str:
        self.asked.append((hub_id, file))
        return str(self.folder / file)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    import huggingface_hub

    config_in(tmp_path / "hub", LLAMA)
    answer = Answer(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer.download)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: answer)
    return answer


def test_of_the_hub_only_the_config_is_fetched(hub: Answer) -> None:
    found = configured_model("nobody/nothing")
    assert found.config.hidden_size == 64
    url, file = hub.asked
    assert url.endswith("/nobody/nothing/resolve/main/config.json")
    assert file == ("nobody/nothing", "config.json")


def test_what_is_bundled_is_not_asked_for(hub: Answer) -> None:
    for model in bundled_models()[:20]:
        assert configured_model(model.id).config is not None
    assert hub.asked == []


def test_the_local_cache_comes_first(hub: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    path = str(hub.folder / "config.json")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: path)
    assert "cache" in configured_model("nobody/nothing").origin
    assert hub.asked == []


def test_without_a_network_there_is_one_sentence(
    hub: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str, **_: Any) -> None:
        raise OSError("[Errno -2] Name or service\nnot known")

    monkeypatch.setattr(hub, "head", unreachable)
    with pytest.raises(ModelError, match="cannot be fetched") as caught:
        configured_model("meta-lama/Llama-2-13b-hf")
    assert "\n" not in str(caught.value)
    assert "did you mean meta-llama/Llama-2-13b-hf" in caught.value.fix
    assert hub.asked == []


def test_offline_there_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        configured_model("nobody/nothing")


# -- what is refused ---------------------------------------------------------------------------


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in LLAMA.items() if name not in names}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "is not JSON"),
        ([1], "model_type"),
        (without("model_type"), "does not say its model_type"),
        ({**LLAMA, "model_type": "lama"}, "does not know 'lama'.*did you mean llama"),
        ({**LLAMA, "model_type": 3}, "model_type"),
        ({**LLAMA, "model_type": "own", "auto_map": {"AutoConfig": "a.B"}}, "runs nobody's code"),
        (without("hidden_size"), "lacks hidden_size; add it"),
        (without("vocab_size", "num_hidden_layers"), "lacks num_hidden_layers and vocab_size"),
        ({**LLAMA, "hidden_size": "wide"}, "not sound.*hidden_size"),
        ({**LLAMA, "hidden_size": -64}, "not sound|must be above 0"),
        ({**LLAMA, "num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"model_type": "vit"}, "no language model"),
    ],
)
def test_configs_that_are_refused(tmp_path: Path, record: Any, words: str) -> None:
    name = config_in(tmp_path / "m", record)
    with pytest.raises(ModelError, match=words) as caught:
        configured_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "there is no model ''"),
        ("lama-2-13b", "did you mean meta-llama/Llama-2-13b-hf"),
        ("smollm-135m", "did you mean"),
        ("zzzzzz", "give a folder that holds config.json"),
        ("/no/such/folder", "no file or folder"),
        ("m.gguf", "no file or folder"),
        ("a/b/c", "there is no model"),
    ],
)
def test_names_that_are_nobodys(name: str, words: str) -> None:
    with pytest.raises(FituneError, match=words):
        configured_model(name)


def test_folders_and_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no config"):
        configured_model(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "gpt2"}')
    with pytest.raises(ModelError, match="estimate its base, gpt2"):
        configured_model(str(tmp_path))
    for name in ("m.bin", "m.txt"):
        (tmp_path / name).write_text("x")
        with pytest.raises(ModelError, match="no model that can be estimated"):
            configured_model(str(tmp_path / name))
    (tmp_path / "m.gguf").write_bytes(b"nope")
    with pytest.raises(ModelError, match="not a GGUF file"):
        configured_model(str(tmp_path / "m.gguf"))


# -- what is left out --------------------------------------------------------------------------


def test_of_a_model_that_also_sees_the_part_that_reads(tmp_path: Path) -> None:
    text = {**LLAMA, "model_type": "gemma3_text", "head_dim": 16, "num_key_value_heads": 2}
    seeing = {"model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 1}
    record = {"model_type": "gemma3", "text_config": text, "vision_config": seeing}
    found = configured_model(config_in(tmp_path / "m", record))
    assert found.config.model_type == "gemma3_text"
    assert "left out" in found.notes[0]


def test_how_weights_are_stored_plays_no_part(tmp_path: Path) -> None:
    record = {**LLAMA, "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}}
    found = configured_model(config_in(tmp_path / "m", record))
    assert getattr(found.config, "quantization_config", None) is None
    assert "stored as fp8" in found.notes[0]
