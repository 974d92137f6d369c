"""Adapters of every kind: the saved decoder answers as before, by fitune and by its README."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.config import Finetuned
from fitune.data.rows import Row
from fitune.data.template import ChatTemplate
from fitune.inference.generate import generate
from fitune.models.adapter import is_of_adapter
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.save import load_saved_decoder, save_decoder
from fitune.models.source import resolve_source
from fitune.training.methods import METHODS, trainable_parameters

KINDS: list[dict[str, Any]] = [
    {"method": "lora", "rank": 4, "lora_init": "pissa"},
    {"method": "ia3"},
    {"method": "prompt-tuning", "virtual_tokens": 3},
    {"method": "prefix-tuning", "virtual_tokens": 3},
]


@pytest.mark.parametrize("options", KINDS, ids=lambda options: options["method"])
def test_saved_and_read_back(
    options: dict[str, Any], tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = resolve_source(str(tiny_decoder))
    tokenizer = load_tokenizer(source)
    template = ChatTemplate(tokenizer)
    model = load_decoder(source, dtype=torch.float32, device="cpu")
    model = METHODS[options["method"]](model, Finetuned(**options)).eval()
    assert all(is_of_adapter(name) for name in trainable_parameters(model))
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape) / 2)
    prompt = template.prompt(Row("what is my card")).tokens
    # PiSSA's adapter is turned into another; the others are read as they were written.
    exact = 3e-5 if "lora_init" in options else 1e-5

    def answers(model: Any) -> tuple[torch.Tensor, tuple[int, ...]]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
        stops = template.stop_tokens
        written = generate(model, [prompt], stop_tokens=stops, max_new_tokens=64, pad=0)
        return logits, written[0].tokens

    logits, written = answers(model)
    folder = tmp_path / "saved"
    save_decoder(
        folder,
        model,
        tokenizer,
        chat_template=template.jinja,
        instruction=None,
        stop_tokens=template.stop_tokens,
    )
    read_logits, read_written = answers(load_saved_decoder(folder, source, device="cpu"))
    assert (read_logits - logits).norm() <= exact * logits.norm()
    assert read_written == written

    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert "fitune" not in code
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers talk of each other's versions
        exec(code.replace('"a question"', '"what is my card"'), names)
    assert (names["logits"][0] - logits).norm() <= exact * logits.norm()
    by_hand = tuple(token for token in names["answer"].tolist() if token not in (0,))
    assert by_hand[: len(written)] == written
