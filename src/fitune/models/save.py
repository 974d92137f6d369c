"""Writes tuned models so that transformers and PEFT alone can load them, and reads them back.

Knows folders and file formats; knows nothing of tasks. Beside the weights stands a README with the
few lines of Python that reproduce the outputs without fitune.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fitune.errors import RunError
from fitune.models.adapter import is_of_adapter, save_adapter
from fitune.models.classifier import Classifier, NativeClassifier, PooledClassifier
from fitune.models.load import load_decoder, load_masked, load_sequence_classifier, load_trunk
from fitune.models.pooling import Pooling
from fitune.models.quiet import import_bitsandbytes, quiet
from fitune.models.source import ModelSource
from fitune.models.virtual_tokens import hide_virtual_tokens, virtual_tokens
from fitune.runs import read_json, write_json, write_text

Quantize = Callable[[Any, torch.dtype], Any]
"""Puts a model's linear layers into four bits; the dtype is that of matrix products."""

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
        (save_adapter if adapted else _save_whole)(inner, folder / place)
        tokenizer.save_pretrained(folder / place)
    about: dict[str, Any] = {"labels": list(labels), "max_length": max_length, "place": place}
    about |= _how_held(inner)
    if isinstance(classifier, PooledClassifier):
        head = classifier.head
        save_file(
            {"weight": head.weight.detach().cpu().contiguous(), "bias": head.bias.detach().cpu()},
            folder / "head.safetensors",
        )
        about |= {"pooling": asdict(classifier.pooling), "scale": classifier.scale}
    write_json(folder / "head.json", about)
    write_text(folder / "README.md", _classifier_readme(classifier, about))


def load_saved_classifier(
    folder: Path, source: ModelSource, *, device: str, quantize: Quantize | None = None
) -> Classifier:
    """What `save_classifier` wrote; `source` is the base model an adapter was trained on.

    Args:
        quantize: for adapters that were trained beside weights in four bits.

    Raises:
        RunError: files are missing or damaged.
    """
    about = read_json(folder / "head.json")
    labels, place = tuple(about["labels"]), about["place"]
    adapted = place == "adapter"
    here = ModelSource(str(folder / place), str(folder / place))
    base = source if adapted else here
    dtype = getattr(torch, about.get("dtype", "float32"))
    if "pooling" not in about:
        model = load_sequence_classifier(base, labels, dtype=dtype, device=device)
        if adapted:
            model = _with_adapter(model, folder / place, about, quantize)
        return NativeClassifier(model).eval()
    trunk = load_trunk(base, dtype=dtype, device=device)
    if adapted:
        trunk = _with_adapter(trunk, folder / place, about, quantize)
    classifier = PooledClassifier(trunk, Pooling(**about["pooling"]), len(labels))
    classifier.head.to(device=device, dtype=dtype)
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
        (save_adapter if is_adapted(model) else _save_whole)(model, folder / place)
        tokenizer.save_pretrained(folder / place)
    about = {"place": place, "virtual_tokens": virtual_tokens(model), **_how_held(model)}
    write_json(folder / "decoder.json", about)
    write_text(folder / "README.md", _decoder_readme(about, instruction, stop_tokens))


def load_saved_decoder(
    folder: Path, source: ModelSource, *, device: str, quantize: Quantize | None = None
) -> Any:
    """What `save_decoder` wrote; `source` is the base model an adapter was trained on.

    Args:
        quantize: for adapters that were trained beside weights in four bits. It is given the base
            on the CPU, and places it on the device.

    Raises:
        RunError: files are missing or damaged.
    """
    about = read_json(folder / "decoder.json")
    path = folder / about["place"]
    dtype = getattr(torch, about["dtype"])
    if about["place"] == "model":
        return load_decoder(ModelSource(str(path), str(path)), dtype=dtype, device=device)
    base = load_decoder(source, dtype=dtype, device="cpu" if about.get("four_bit") else device)
    return _with_adapter(base, path, about, quantize)


def _save_whole(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def save_language_model(folder: Path, model: Any, tokenizer: Any, *, masked: bool) -> None:
    """Write a model of plain text whole (`model/`: AutoModelForCausalLM, or AutoModelForMaskedLM
    where it is `masked`) or its adapter (`adapter/`, PEFT), with its tokenizer."""
    place = "adapter" if is_adapted(model) else "model"
    with quiet():
        (save_adapter if is_adapted(model) else _save_whole)(model, folder / place)
        tokenizer.save_pretrained(folder / place)
    about = {"place": place, **_how_held(model)}
    write_json(folder / "decoder.json", about)
    auto = "AutoModelForMaskedLM" if masked else "AutoModelForCausalLM"
    text = f"a text with a {tokenizer.mask_token}" if masked else "a text to go on with"
    write_text(folder / "README.md", _language_model_readme(auto, about, text))


def load_saved_masked(folder: Path, *, device: str) -> Any:
    """The masked language model that `save_language_model` wrote."""
    about = read_json(folder / "decoder.json")
    here = str(folder / about["place"])
    dtype = getattr(torch, about["dtype"])
    return load_masked(ModelSource(here, here), dtype=dtype, device=device)[0]


def saved_tokenizer_folder(folder: Path) -> Path:
    """Where the functions here put the tokenizer."""
    name = "head.json" if (folder / "head.json").is_file() else "decoder.json"
    return folder / read_json(folder / name)["place"]


def _how_held(model: Any) -> dict[str, Any]:
    """What loading needs to know to compute as before.

    `dtype` is that of weights that do not train, or of all; `adapter_dtype` that of an adapter;
    `four_bit` the dtype of matrix products with weights in four bits, None where there are none;
    `full_precision` the linear layers that are not in four bits where others are.
    """
    adapter = next((p for n, p in model.named_parameters() if is_of_adapter(n)), None)
    about: dict[str, Any] = {
        "dtype": _name(model.dtype),
        "adapter_dtype": None if adapter is None else _name(adapter.dtype),
        "four_bit": None,
    }
    if getattr(model, "is_loaded_in_4bit", False):
        layers = (getattr(module, "compute_dtype", None) for module in model.modules())
        about["four_bit"] = next(_name(dtype) for dtype in layers if dtype is not None)
        about["full_precision"] = _unquantized(model.get_base_model())
    return about


def _unquantized(model: Any) -> list[str]:
    """The linear layers that are not in four bits, by the names they had before PEFT came."""
    from transformers.pytorch_utils import Conv1D

    linear = [n for n, m in model.named_modules() if type(m) in (torch.nn.Linear, Conv1D)]
    names = (re.sub(r"\.(base_layer|original_module)$", "", name) for name in linear)
    return sorted({n for n in names if not is_of_adapter(n) and "modules_to_save" not in n})


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _with_adapter(
    model: Any, folder: Path, about: dict[str, Any], quantize: Quantize | None
) -> Any:
    import_bitsandbytes()
    from peft import PeftModel

    if about.get("four_bit"):
        assert quantize is not None, "who loads such an adapter brings the quantization"
        model = quantize(model, getattr(torch, about["four_bit"]))
    try:
        with quiet():
            # PEFT would leave what the file lacks as it was drawn, and only warn.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(model, folder).eval()
        hide_virtual_tokens(model)
    except Exception as error:  # safetensors' own is a plain Exception
        raise RunError(
            f"the adapter '{folder}' cannot be loaded ({str(error).splitlines()[0]})",
            fix="train again, or restore the folder",
        ) from error
    if about.get("adapter_dtype") not in (None, "float32"):  # PEFT makes adapters in fp32
        for name, parameter in model.named_parameters():
            if is_of_adapter(name):
                parameter.data = parameter.data.to(getattr(torch, about["adapter_dtype"]))
    return model


def _load_lines(auto: str, about: dict[str, Any], extra: str = "") -> list[str]:
    """Python that loads what was saved as `model`."""
    place, dtype = about["place"], f"dtype=torch.{about['dtype']}"
    if place != "adapter":
        return [f'model = {auto}.from_pretrained("{place}", {dtype}).eval()']
    lines = ['base = PeftConfig.from_pretrained("adapter").base_model_name_or_path']
    if about["four_bit"]:
        lines += [
            'four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",',
            "                              bnb_4bit_use_double_quant=True,",
            f"                              bnb_4bit_compute_dtype=torch.{about['four_bit']},",
            f"                              llm_int8_skip_modules={about['full_precision']})",
        ]
        extra += ", quantization_config=four_bit"
    lines.append(f"model = {auto}.from_pretrained(base{extra}, {dtype})")
    if about["four_bit"]:
        lines += [
            "for module in model.modules():  # no kernel that rounds more than training did",
            "    module.support_avx512bf16_for_cpu = False",
        ]
    as_saved = "" if about["adapter_dtype"] == "float32" else ", autocast_adapter_dtype=False"
    lines.append(f'model = PeftModel.from_pretrained(model, "adapter"{as_saved}).eval()')
    return lines


def _imports(auto: str, about: dict[str, Any]) -> list[str]:
    names = f"{auto}, AutoTokenizer" + (", BitsAndBytesConfig" if about["four_bit"] else "")
    peft = ["from peft import PeftModel, PeftConfig"] if about["place"] == "adapter" else []
    return [*peft, f"from transformers import {names}", ""]


def _classifier_readme(classifier: Classifier, about: dict[str, Any]) -> str:
    pooled = isinstance(classifier, PooledClassifier)
    auto = "AutoModel" if pooled else "AutoModelForSequenceClassification"
    lines = ["import json", "from pathlib import Path", "import torch"]
    if pooled:
        lines.append("from safetensors.torch import load_file")
    lines += _imports(auto, about)
    lines += ['texts = ["a text to classify"]', 'about = json.loads(Path("head.json").read_text())']
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{about["place"]}")')
    lines += _load_lines(auto, about, "" if pooled else ', num_labels=len(about["labels"])')
    lines += [
        "batch = tokenizer(texts, padding=True, truncation=True, split_special_tokens=True,",
        '                  max_length=about["max_length"], return_tensors="pt")',
        "with torch.no_grad():",
    ]
    if isinstance(classifier, PooledClassifier):
        lines += [
            "    hidden = model(**batch).last_hidden_state.float()",
            'mask = batch["attention_mask"][..., None]',
            f"vectors = {_POOL[classifier.pooling.mode]}",
        ]
        if classifier.pooling.normalize:
            lines.append("vectors = torch.nn.functional.normalize(vectors, dim=-1)")
        lines += [
            'head = load_file("head.safetensors")',
            'vectors = (vectors * about["scale"]).to(head["weight"].dtype)',
            'logits = (vectors @ head["weight"].T + head["bias"]).float()',
        ]
    else:
        lines.append("    logits = model(**batch).logits.float()")
    lines.append('print([about["labels"][i] for i in logits.argmax(-1)])')
    return _readme("A text classifier", lines)


def _decoder_readme(
    about: dict[str, Any], instruction: str | None, stop_tokens: tuple[int, ...]
) -> str:
    lines = ["import torch", *_imports("AutoModelForCausalLM", about)]
    lines += [
        'text = "a question"',
        f"instruction = {instruction!r}",
        f'tokenizer = AutoTokenizer.from_pretrained("{about["place"]}")',
    ]
    lines += _load_lines("AutoModelForCausalLM", about)
    lines += [
        'content = f"{instruction}\\n\\n{text}" if instruction else text',
        'prompt = tokenizer.apply_chat_template([{"role": "user", "content": content}],',
        "                                       add_generation_prompt=True, tokenize=False)",
        'batch = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")',
        "with torch.no_grad():",
        "    logits = model(**batch).logits[:, -1]",
        *(_write_anew if about["virtual_tokens"] else _write)(stop_tokens),
        'answer = tokens[0, batch["input_ids"].shape[1]:]',
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]
    return _readme("A language model", lines)


def _language_model_readme(auto: str, about: dict[str, Any], text: str) -> str:
    lines = ["import torch", *_imports(auto, about)]
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{about["place"]}")')
    lines += _load_lines(auto, about)
    lines += [
        f'batch = tokenizer("{text}", return_tensors="pt")',
        "with torch.no_grad():",
        "    logits = model(**batch).logits[0].float()",
        "print(tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist()))",
    ]
    return _readme("A language model", lines)


def _write(stop_tokens: tuple[int, ...]) -> list[str]:
    return [
        "    tokens = model.generate(**batch, do_sample=False, max_new_tokens=64,",
        f"                            eos_token_id={list(stop_tokens)},",
        "                            pad_token_id=tokenizer.pad_token_id)",
    ]


def _write_anew(stop_tokens: tuple[int, ...]) -> list[str]:
    """Virtual tokens get lost on PEFT's way to the cache (see `models.virtual_tokens`)."""
    return [
        '    tokens = batch["input_ids"]',
        "    for _ in range(64):  # without a cache, which virtual tokens do not get into",
        "        word = model(input_ids=tokens, use_cache=False).logits[:, -1:].argmax(-1)",
        "        tokens = torch.cat([tokens, word], dim=1)",
        f"        if word.item() in {list(stop_tokens)}:",
        "            break",
    ]


def _readme(title: str, lines: list[str]) -> str:
    code = "\n".join(lines)
    return (
        f"# {title}, tuned by fitune\n\n"
        "Runs in this folder without fitune:\n\n"
        f"```python\n{code}\n```\n"
    )
