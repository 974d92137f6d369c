"""Frozen layers are computed once for each row, and only where that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fitune.config import Finetuned
from fitune.data.batches import label_batch
from fitune.data.template import Encoded
from fitune.errors import Interrupted
from fitune.inference.classify import classify
from fitune.models.classifier import PooledClassifier, load_classifier
from fitune.models.source import resolve_source
from fitune.training import kept_values
from fitune.training.methods import METHODS, Method, layers_of, prepare
from fitune.training.trunk_cache import Surroundings, trunk_kept

TOP = {"method": "freeze", "freeze_layers": 1}
HEAD = {"method": "head"}


def encoded(count: int) -> list[Encoded]:
    """Rows of very different lengths; the last is the first again."""
    random = np.random.default_rng(0)
    rows = [tuple(random.integers(5, 60, 2 + (7 * i) % 30).tolist()) for i in range(count)]
    return [Encoded(tokens, ()) for tokens in [*rows, rows[0]]]


ITEMS = encoded(40)


class Bench:
    """A tiny classifier with a method applied, and what was said."""

    def __init__(self, folder: Path, scratch: Path, **options: Any) -> None:
        self.options = Finetuned(**{"epochs": 3.0, "dtype": "fp32", **options})
        self.model: Any = load_classifier(
            resolve_source(str(folder)), ("a", "b", "c"), dtype=torch.float32, device="cpu", seed=0,
            dropout=self.options.dropout,
        )  # fmt: skip
        method: Method = METHODS[self.options.method or ""]
        if isinstance(self.model, PooledClassifier):
            self.model.trunk = prepare(self.model.trunk, method, self.options)
        else:
            self.model.model = prepare(self.model.model, method, self.options)
        self.notices: list[str] = []
        self.scratch = scratch
        self.computed = 0
        """How often the lowest layer was."""
        layers_of(self.model)[0].attention.register_forward_hook(self._count)

    def _count(self, *told: Any) -> None:
        self.computed += 1

    def kept(self, **changes: Any) -> AbstractContextManager[None]:
        around: dict[str, Any] = {
            "pad": 0, "device": "cpu", "autocast": None, "room": 2**30, "folder": self.scratch,
            "progress": lambda *told: None, "notice": self.notices.append,
            "stop_requested": lambda: False,
        }  # fmt: skip
        return trunk_kept(self.model, ITEMS, self.options, Surroundings(**{**around, **changes}))

    def logits(self, items: list[Encoded], rows: list[int]) -> torch.Tensor:
        some = [items[i] for i in rows]
        batch = label_batch(some, [0] * len(rows), rows, 0)
        return self.model(batch.input_ids, batch.attention_mask)

    def used(self, **changes: Any) -> bool:
        with self.kept(**changes):
            self.computed = 0
            self.logits(ITEMS, [3, 1])
            return self.computed == 0


@pytest.fixture(params=["tiny_encoder", "tiny_native_encoder"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Bench]:
    folder = request.getfixturevalue(request.param)
    return lambda **options: Bench(folder, tmp_path, **options)


@pytest.mark.parametrize("options", [TOP, HEAD], ids=lambda options: options["method"])
@pytest.mark.parametrize("room", [2**30, 0], ids=["memory", "file"])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["fp32", "bf16"])
def test_rows_are_answered_from_what_is_kept(
    bench: Callable[..., Bench], options: dict[str, Any], room: int, autocast: torch.dtype | None
) -> None:
    made = bench(**options)
    rows = [4, 11, 3, 40]
    faster = torch.autocast("cpu", dtype=autocast, enabled=autocast is not None)
    with faster:
        expected = made.logits(ITEMS, rows)
    with made.kept(room=room, autocast=autocast):
        made.computed = 0
        with faster:
            found = made.logits(ITEMS, rows)
        validated = classify(made.model, ITEMS, pad=0, device="cpu", autocast=autocast)
        assert made.computed == 0
        assert found.requires_grad, "what is above still learns"
    tolerance = 1e-5 if autocast is None else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    after = classify(made.model, ITEMS, pad=0, device="cpu", autocast=autocast)
    assert made.computed > 0, "nothing is kept beyond the block"
    np.testing.assert_allclose(validated, after, rtol=tolerance, atol=tolerance)
    (said,) = made.notices
    assert said.startswith("frozen layers are computed once for 40 rows: ")
    assert said.endswith("kept in memory" if room else f"kept in a file in '{made.scratch}'")


@pytest.mark.parametrize("options", [TOP, HEAD], ids=lambda options: options["method"])
def test_a_value_does_not_depend_on_the_batch(
    bench: Callable[..., Bench], options: dict[str, Any]
) -> None:
    """The same bits, whatever stands beside a row, and computed again as after a kill."""
    made = bench(**options)
    reader = made.model.trunk.encoder.layer[1]
    if options is HEAD:
        reader = getattr(made.model, "head", made.model.trunk.pooler)
    seen: list[torch.Tensor] = []
    reader.register_forward_pre_hook(lambda module, given: seen.append(given[0][0]))
    read = []
    for _ in range(2):
        with made.kept():
            for rows in ([0], [0, 20], [0, 4, 11, 39]):
                made.logits(ITEMS, rows)
                read.append(seen[-1][:2].clone())  # the row has two tokens
    assert len(ITEMS[0]) == 2
    assert all(torch.equal(each, read[0]) for each in read)


def test_rows_that_are_not_known_are_computed(bench: Callable[..., Bench]) -> None:
    made = bench(**TOP)
    others = [*ITEMS[:3], Encoded((7, 7, 7, 7), ())]
    expected = made.logits(others, [0, 3])
    with made.kept():
        made.computed = 0
        found = made.logits(others, [0, 3])
        assert made.computed == 1
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {**TOP, "dropout": 0.1},
        {**TOP, "neftune": 5.0},
        {**TOP, "trunk_cache": False},
        {**TOP, "epochs": 1.0},
        {"method": "full"},
        {"method": "lora", "rank": 2},
        {"method": "bitfit"},
    ],
    ids=str,
)
def test_it_is_left_out(bench: Callable[..., Bench], options: dict[str, Any]) -> None:
    made = bench(**options)
    assert not made.used()
    assert made.notices == []
    assert "forward" not in vars(made.model)


@pytest.mark.parametrize("options", [TOP, HEAD], ids=lambda options: options["method"])
def test_what_is_random_all_the_same_is_found_out(
    bench: Callable[..., Bench], options: dict[str, Any]
) -> None:
    """Dropout that no option speaks of: the trial is made as in training."""
    made = bench(**options)
    assert made.used()
    made.model.eval().trunk.encoder.layer[0].output.dropout.p = 0.3
    state = torch.get_rng_state()
    assert not made.used()
    assert torch.equal(torch.get_rng_state(), state), (
        "a trial draws nothing from training's numbers"
    )


def test_what_reads_its_neighbours_is_found_out(bench: Callable[..., Bench]) -> None:
    """A layer in which a row depends on how it is padded."""
    made = bench(**TOP)
    layer = made.model.trunk.encoder.layer[0].output.dense
    layer.register_forward_hook(lambda module, given, output: output + output.mean(1, True))
    assert not made.used()


def test_a_family_that_cannot_be_entered_is_found_out(bench: Callable[..., Bench]) -> None:
    """Its layers must be there by another name: whatever it raises, it is trained without."""
    made = bench(**TOP)
    inner = made.model.trunk.encoder
    plain = inner.forward

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        for layer in inner.layer:
            if "forward" in vars(layer):
                raise KeyError("states")
        return plain(hidden, *args, **kwargs)

    inner.forward = forward
    assert not made.used() and made.notices == []


def test_a_full_disk_is_said(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(**TOP)
    monkeypatch.setattr(kept_values, "disk_free", lambda folder: 100)
    assert not made.used(room=100)
    (said,) = made.notices
    assert "no room" in said and "No space left on device" in said and "in every epoch" in said


def test_it_can_be_stopped(bench: Callable[..., Bench]) -> None:
    made = bench(**TOP)
    with pytest.raises(Interrupted), made.kept(stop_requested=lambda: True):
        pytest.fail("it went on")
    assert "forward" not in vars(made.model)


def test_the_mode_and_the_model_come_back(bench: Callable[..., Bench]) -> None:
    made = bench(**TOP)
    made.model.train()
    with pytest.raises(ZeroDivisionError), made.kept():
        assert made.model.training
        raise ZeroDivisionError
    assert all("forward" not in vars(module) for module in made.model.modules())


def test_a_model_that_is_no_classifier(tmp_path: Path) -> None:
    bench = Surroundings(0, "cpu", None, 1, tmp_path, print, pytest.fail, lambda: False)
    with trunk_kept(nn.Linear(2, 2), ITEMS, Finetuned(epochs=3.0), bench):
        pass
