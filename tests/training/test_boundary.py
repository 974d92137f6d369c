"""Classifiers of many families are entered where their frozen part ends, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from fitune.config import Finetuned
from fitune.models.classifier import Classifier, NativeClassifier, PooledClassifier
from fitune.models.pooling import Pooling
from fitune.training.boundary import AtLayer, AtPooling, find_boundary
from fitune.training.methods import METHODS, layers_of, trainable_parameters

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "dim": 16,
    "intermediate_size": 32,
    "hidden_dim": 32,
    "num_hidden_layers": 3,
    "n_layers": 3,
    "num_attention_heads": 2,
    "n_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "num_labels": 3,
    "embedding_size": 8,  # of those that widen their embeddings afterwards
    "global_attn_every_n_layers": 2,
    "local_attention": 4,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
}
FAMILIES = [
    *("bert", "distilbert", "roberta", "modernbert", "mpnet", "deberta-v2", "albert", "electra"),
    "xlm-roberta",
]
TRAINS_BELOW = {"deberta-v2"}
"""`freeze` leaves something below all layers to train: a convolution after the first layer,
which is none of the layers itself."""

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13], [5, 9, 4, 0, 0, 0, 0, 0, 0]])
MASK = (IDS != 0).long()


def classifier(family: str, *, pooled: bool) -> Classifier:
    known = AutoConfig.for_model(family)
    sizes = {name: value for name, value in SIZES.items() if hasattr(known, name)}
    if family == "deberta-v2":
        sizes |= {"embedding_size": 16, "conv_kernel_size": 3}  # a layer after the first
    config = AutoConfig.for_model(family, **sizes)
    for name in list(vars(config)):
        if "dropout" in name and isinstance(getattr(config, name), float):
            setattr(config, name, 0.0)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    if pooled:
        extra = {"add_pooling_layer": False} if family in ("bert", "mpnet", "roberta") else {}
        model: Any = AutoModel.from_config(config, **extra)
        return PooledClassifier(model, Pooling("mean", normalize=True), 3)
    return NativeClassifier(AutoModelForSequenceClassification.from_config(config))


def applied(model: Classifier, **options: Any) -> Classifier:
    """With the method, as `EncoderTuner.build` applies it."""
    given = Finetuned(**options)
    method = METHODS[given.method or ""]
    if isinstance(model, NativeClassifier):
        model.model = method(model.model, given)
    else:
        model.trunk = method(model.trunk, given)
    return model.eval()


def loss_and_gradients(model: Classifier) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(IDS, MASK)
    loss = nn.functional.cross_entropy(logits, torch.tensor([1, 2]))
    loss.backward()
    # What the loss does not depend on (a pooler that is not read) may get zeros or nothing.
    found = [p.grad for p in trainable_parameters(model).values()]
    return [logits.detach(), *(g if g is not None else torch.zeros(()) for g in found)]


@pytest.mark.parametrize("method", ["head", "freeze"])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_entered_in_the_middle(family: str, pooled: bool, method: str) -> None:
    """Logits and every gradient are those of the plain pass, and nothing below is computed."""
    options = {"freeze_layers": 1 if family == "albert" else 2} if method == "freeze" else {}
    model = applied(classifier(family, pooled=pooled), method=method, **options)
    boundary = find_boundary(model, IDS, MASK)
    if method == "freeze" and family in TRAINS_BELOW:
        assert boundary is None
        return
    assert isinstance(boundary, AtPooling if pooled and method == "head" else AtLayer)
    expected = loss_and_gradients(model)
    with torch.no_grad():  # one row at a time: no padding
        lengths = MASK.sum(1).tolist()
        alone = [
            boundary.reached(IDS[i : i + 1, :n], MASK[i : i + 1, :n]) for i, n in enumerate(lengths)
        ]
    values = nn.utils.rnn.pad_sequence([v[0] for v in alone], batch_first=True)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    kept = [p.detach().clone() for p in frozen]
    states = {name: value.clone() for name, value in model.state_dict().items()}
    stack = [] if isinstance(boundary, AtPooling) else list(layers_of(model))
    with torch.no_grad():
        for layer in stack[: 2 if method == "freeze" else None]:
            for parameter in layer.parameters():
                parameter.fill_(float("nan"))  # whatever reads it shows
    with boundary.starting_at(values):
        found = loss_and_gradients(model)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        for parameter, value in zip(frozen, kept, strict=True):
            parameter.copy_(value)
    assert model.state_dict().keys() == states.keys()
    for a, b in zip(loss_and_gradients(model), expected, strict=True):
        assert torch.equal(a, b), "the model is as it was"
    assert all("forward" not in vars(module) for module in model.modules())
    assert "embed" not in vars(model)


@pytest.mark.parametrize(
    "options",
    [{"method": "full"}, {"method": "lora", "rank": 2}, {"method": "bitfit"}, {"method": "ia3"}],
    ids=lambda options: options["method"],
)
@pytest.mark.parametrize("pooled", [True, False])
def test_there_is_none_where_the_lowest_layer_trains(pooled: bool, options: dict[str, Any]) -> None:
    assert find_boundary(applied(classifier("bert", pooled=pooled), **options), IDS, MASK) is None


def test_adapters_of_high_layers_only() -> None:
    """No method is known by name: it is what trains that counts."""
    model = applied(
        classifier("bert", pooled=True),
        method="lora",
        rank=2,
        target_modules=r".*layer\.2\..*dense",
    )
    boundary = find_boundary(model, IDS, MASK)
    assert isinstance(boundary, AtLayer)
    expected = model(IDS, MASK)
    with boundary.starting_at(boundary.reached(IDS, MASK).detach()):
        torch.testing.assert_close(model(IDS, MASK), expected)


def embeddings(model: Any) -> nn.Module:
    return model.trunk.embeddings.word_embeddings


@pytest.mark.parametrize(
    "trains", [embeddings, lambda model: model.trunk.embeddings.LayerNorm], ids=["words", "norm"]
)
def test_what_trains_below_frozen_layers(trains: Callable[[Any], nn.Module]) -> None:
    model = applied(classifier("bert", pooled=True), method="freeze", freeze_layers=2)
    assert find_boundary(model, IDS, MASK) is not None
    trains(model).requires_grad_(True)
    assert find_boundary(model, IDS, MASK) is None


class TwoStates(nn.Module):
    """A layer that hands a second tensor on to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(hidden), hidden


def test_a_layer_that_returns_more_than_hidden_states_is_left_alone() -> None:
    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.layers = nn.ModuleList(TwoStates() for _ in range(3))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            hidden = self.words(input_ids)
            for layer in self.layers:
                hidden, _ = layer(hidden)
            return type("Output", (), {"last_hidden_state": hidden})

    trunk: Any = Trunk()
    trunk.config = type("Config", (), {"hidden_size": 16})
    trunk.words.requires_grad_(False)
    trunk.layers[0].requires_grad_(False)
    model = PooledClassifier(trunk, Pooling("mean", normalize=True), 3)
    assert find_boundary(model, IDS, MASK) is None
