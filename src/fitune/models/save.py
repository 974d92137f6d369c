"""Writes tuned models so that transformers and PEFT alone can load them, and reads them back.

Knows folders and file formats; knows nothing of tasks. Beside the weights stands a README with the
few lines of Python that reproduce the outputs without fitune.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fitune.errors import RunError
from fitune.models.classifier import Classifier, NativeClassifier, PooledClassifier
from fitune.models.load import load_decoder, load_sequence_classifier, load_trunk
from fitune.models.pooling import Pooling
from fitune.models.quiet import quiet
from fitune.models.source import ModelSource
from fitune.runs import read_json, write_json, write_text

_POOL = {
    "mean": "(hidden * mask).sum(1) / mask.sum(1)",
    "cls": "hidden[:, 0]",
    "max": 'hidden.masked_fill(mask == 0, float("-inf")).amax(1)',
    "last": 'hidden[torch.arange(len(hidden)), batch["attention_mask"].sum(1) - 1]',
}


def is_adapted(model: Any) -> bool:
    """Whether PEFT wrapped this model."""
    return hasattr(model, "peft_config")


def save_classifier(
    folder: Path,
    classifier: Classifier,
    tokenizer: Any,
    *,
    labels: tuple[str, ...],
    max_length: int,
) -> None:
    """Write an encoder and its head.

    A pooled classifier becomes `trunk/` (AutoModel) or `adapter/` (PEFT), `head.safetensors`
    (``weight`` ``[labels, hidden]``, ``bias`` ``[labels]``) and `head.json` (pooling, scale,
    labels); transformers' own becomes `model/` (AutoModelForSequenceClassification) or `adapter/`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapted, pooled = False, isinstance(classifier, PooledClassifier)
    inner = classifier.trunk if isinstance(classifier, PooledClassifier) else classifier.model
    adapted = is_adapted(inner)
    place = "adapter" if adapted else "trunk" if pooled else "model"
    with quiet():
        inner.save_pretrained(folder / place)
        tokenizer.save_pretrained(folder / place)
    about: dict[str, Any] = {"labels": list(labels), "max_length": max_length, "place": place}
    if isinstance(classifier, PooledClassifier):
        head = classifier.head
        save_file(
            {"weight": head.weight.detach().cpu().contiguous(), "bias": head.bias.detach().cpu()},
            folder / "head.safetensors",
        )
        about |= {"pooling": asdict(classifier.pooling), "scale": classifier.scale}
    write_json(folder / "head.json", about)
    write_text(folder / "README.md", _classifier_readme(classifier, place, adapted))


def load_saved_classifier(folder: Path, source: ModelSource, *, device: str) -> Classifier:
    """What `save_classifier` wrote; `source` is the base model an adapter was trained on.

    Raises:
        RunError: files are missing or damaged.
    """
    about = read_json(folder / "head.json")
    labels, place = tuple(about["labels"]), about["place"]
    adapted = place == "adapter"
    here = ModelSource(str(folder / place), str(folder / place))
    base = source if adapted else here
    if "pooling" not in about:
        model = load_sequence_classifier(base, labels, dtype=torch.float32, device=device)
        return NativeClassifier(_with_adapter(model, folder / place) if adapted else model).eval()
    trunk = load_trunk(base, dtype=torch.float32, device=device)
    if adapted:
        trunk = _with_adapter(trunk, folder / place)
    classifier = PooledClassifier(trunk, Pooling(**about["pooling"]), len(labels)).to(device)
    classifier.scale = about["scale"]
    try:
        classifier.head.load_state_dict(load_file(folder / "head.safetensors"))
    except Exception as error:  # safetensors' own is a plain Exception
        raise RunError(
            f"'{folder / 'head.safetensors'}' cannot be read ({error})",
            fix="train again, or restore the file",
        ) from error
    return classifier.eval()


def save_decoder(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    chat_template: str,
    instruction: str | None,
    stop_tokens: tuple[int, ...],
) -> None:
    """Write a decoder whole (`model/`, AutoModelForCausalLM) or its adapter (`adapter/`, PEFT).

    The tokenizer goes with it and carries the chat template that training used; a whole model's
    generation settings carry the tokens that end an answer.
    """
    place = "adapter" if is_adapted(model) else "model"
    tokenizer.chat_template = chat_template
    model.generation_config.eos_token_id = list(stop_tokens)
    with quiet():
        model.save_pretrained(folder / place)
        tokenizer.save_pretrained(folder / place)
    write_json(folder / "decoder.json", {"place": place, "dtype": str(model.dtype).split(".")[-1]})
    write_text(
        folder / "README.md",
        _decoder_readme(place, str(model.dtype).split(".")[-1], instruction, stop_tokens),
    )


def load_saved_decoder(folder: Path, source: ModelSource, *, device: str) -> Any:
    """What `save_decoder` wrote; `source` is the base model an adapter was trained on.

    Raises:
        RunError: files are missing or damaged.
    """
    about = read_json(folder / "decoder.json")
    path = folder / about["place"]
    dtype = getattr(torch, about["dtype"])
    if about["place"] == "model":
        return load_decoder(ModelSource(str(path), str(path)), dtype=dtype, device=device)
    return _with_adapter(load_decoder(source, dtype=dtype, device=device), path)


def saved_tokenizer_folder(folder: Path) -> Path:
    """Where `save_classifier` or `save_decoder` put the tokenizer."""
    name = "head.json" if (folder / "head.json").is_file() else "decoder.json"
    return folder / read_json(folder / name)["place"]


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    try:
        with quiet():
            # PEFT would leave what the file lacks as it was drawn, and only warn.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, folder).eval()
    except Exception as error:  # safetensors' own is a plain Exception
        raise RunError(
            f"the adapter '{folder}' cannot be loaded ({str(error).splitlines()[0]})",
            fix="train again, or restore the folder",
        ) from error


def _classifier_readme(classifier: Classifier, place: str, adapted: bool) -> str:
    pooled = isinstance(classifier, PooledClassifier)
    auto = "AutoModel" if pooled else "AutoModelForSequenceClassification"
    lines = ["import json", "from pathlib import Path", "import torch"]
    if adapted:
        lines.append("from peft import PeftModel, PeftConfig")
    if pooled:
        lines.append("from safetensors.torch import load_file")
    lines += [f"from transformers import {auto}, AutoTokenizer", ""]
    lines += ['texts = ["a text to classify"]', 'about = json.loads(Path("head.json").read_text())']
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{place}")')
    extra = "" if pooled else ', num_labels=len(about["labels"])'
    if adapted:
        lines += [
            'base = PeftConfig.from_pretrained("adapter").base_model_name_or_path',
            f"model = {auto}.from_pretrained(base{extra}, dtype=torch.float32)",
            'model = PeftModel.from_pretrained(model, "adapter").eval()',
        ]
    else:
        lines.append(f'model = {auto}.from_pretrained("{place}", dtype=torch.float32).eval()')
    lines += [
        "batch = tokenizer(texts, padding=True, truncation=True, split_special_tokens=True,",
        '                  max_length=about["max_length"], return_tensors="pt")',
        "with torch.no_grad():",
    ]
    if isinstance(classifier, PooledClassifier):
        lines += [
            "    hidden = model(**batch).last_hidden_state",
            'mask = batch["attention_mask"][..., None]',
            f"vectors = {_POOL[classifier.pooling.mode]}",
        ]
        if classifier.pooling.normalize:
            lines.append("vectors = torch.nn.functional.normalize(vectors, dim=-1)")
        lines += [
            'head = load_file("head.safetensors")',
            'logits = vectors * about["scale"] @ head["weight"].T + head["bias"]',
        ]
    else:
        lines.append("    logits = model(**batch).logits")
    lines.append('print([about["labels"][i] for i in logits.argmax(-1)])')
    return _readme("A text classifier", lines)


def _decoder_readme(
    place: str, dtype: str, instruction: str | None, stop_tokens: tuple[int, ...]
) -> str:
    lines = ["import torch"]
    if place == "adapter":
        lines.append("from peft import PeftModel, PeftConfig")
    lines += [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'text = "a question"',
        f"instruction = {instruction!r}",
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")',
    ]
    if place == "adapter":
        lines += [
            'base = PeftConfig.from_pretrained("adapter").base_model_name_or_path',
            f"model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.{dtype})",
            'model = PeftModel.from_pretrained(model, "adapter").eval()',
        ]
    else:
        lines.append(
            f'model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.{dtype}).eval()'
        )
    lines += [
        'content = f"{instruction}\\n\\n{text}" if instruction else text',
        'prompt = tokenizer.apply_chat_template([{"role": "user", "content": content}],',
        "                                       add_generation_prompt=True, tokenize=False)",
        'batch = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")',
        "with torch.no_grad():",
        "    logits = model(**batch).logits[:, -1]",
        "    tokens = model.generate(**batch, do_sample=False, max_new_tokens=64,",
        f"                            eos_token_id={list(stop_tokens)},",
        "                            pad_token_id=tokenizer.pad_token_id)",
        'answer = tokens[0, batch["input_ids"].shape[1]:]',
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]
    return _readme("A language model", lines)


def _readme(title: str, lines: list[str]) -> str:
    code = "\n".join(lines)
    return (
        f"# {title}, tuned by fitune\n\n"
        "Runs in this folder without fitune:\n\n"
        f"```python\n{code}\n```\n"
    )
