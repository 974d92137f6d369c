"""Logits of many rows against one row at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fitune.data.rows import Row
from fitune.data.template import TextTemplate
from fitune.inference.classify import classify
from fitune.models.classifier import load_classifier
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source


@pytest.mark.parametrize("folder", ["tiny_encoder", "tiny_native_encoder"])
def test_rows_do_not_depend_on_their_neighbours(
    folder: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = request.getfixturevalue(folder)
    source = resolve_source(str(path))
    tokenizer = load_tokenizer(source)
    model = load_classifier(source, ("a", "b", "c"), dtype=torch.float32, device="cpu", seed=0)
    model.train()  # dropout must be off all the same
    texts = ["my card " * n for n in (9, 1, 4, 2, 7)]
    items = [TextTemplate(tokenizer).encode(Row(text)) for text in texts]
    monkeypatch.setattr("fitune.inference.classify.BATCH_TOKENS", 40)
    seen: list[tuple[int, int]] = []
    found = classify(
        model,
        items,
        pad=tokenizer.pad_token_id,
        device="cpu",
        progress=lambda done, total: seen.append((done, total)),
    )
    model.eval()
    with torch.no_grad():
        alone = [
            model(torch.tensor([i.tokens]), torch.ones(1, len(i), dtype=torch.int64))[0].numpy()
            for i in items
        ]
    np.testing.assert_allclose(found, np.stack(alone), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    assert len(seen) > 1 and seen[-1] == (5, 5)
