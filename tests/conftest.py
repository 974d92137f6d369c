"""Tiny models and rows, made once a session: real architectures and real tokenizers, seconds to
train, nothing to download."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test touches the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers stand side by side: two threads in each would wait for one another's cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPOKEN = (
    "the a card account money bank transfer lost stolen arrive late fee charge why how what "
    "is my new old please help top up pin code change cash machine atm fast slow hello world "
    "blue red green system user assistant answer with one of these labels classify text "
)
WORDS = SPOKEN.split()

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions go to a cache that the session throws away, unless one is set already."""
    if "FITUNE_CACHE" not in os.environ:
        base = tmp_path_factory.getbasetemp() / "cache"
        monkeypatch.setenv("FITUNE_CACHE", str(base))


def make_tokenizer(*, chat: bool) -> Any:
    """A byte-level BPE tokenizer trained on a few words; any text survives it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[3:] if chat else [],
    )
    made.chat_template = CHAT_TEMPLATE if chat else None
    return made


def save_decoder(folder: Path, *, chat: bool = True, **changes: Any) -> Path:
    """A two-layer Llama of about 60,000 parameters, drawn from seed 0."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(chat=chat)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(folder: Path, *, pooled: bool = True, **changes: Any) -> Path:
    """A two-layer BERT with a word-piece tokenizer; `pooled` says mean pooling, as
    sentence-transformers folders do."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789?.,!'")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    vocabulary += ["##" + c for c in letters]
    vocabulary = list(dict.fromkeys(vocabulary))
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }
    BertModel(BertConfig(**{**sizes, **changes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pooled:
        prefix = "sentence_transformers.models."
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": prefix + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": prefix + "Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": prefix + "Normalize"},
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama, its tokenizer and a chat template."""
    return save_decoder(tmp_path_factory.mktemp("decoder") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_base_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_decoder`, without a chat template."""
    return save_decoder(tmp_path_factory.mktemp("base") / "tiny-base", chat=False)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT that says it pools by the normalised mean."""
    return save_encoder(tmp_path_factory.mktemp("encoder") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_native_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT and its pooler, without word of pooling."""
    return save_encoder(tmp_path_factory.mktemp("native") / "tiny-native", pooled=False)


WIDE = {"hidden_size": 64, "intermediate_size": 128}
"""Linear layers of at least 64 inputs, as four-bit blocks need."""


@pytest.fixture(scope="session")
def wide_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_decoder`, wide enough for four bits."""
    return save_decoder(tmp_path_factory.mktemp("wide") / "wide-llama", **WIDE)


@pytest.fixture(scope="session")
def wide_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_encoder`, wide enough for four bits."""
    return save_encoder(tmp_path_factory.mktemp("wide") / "wide-bert", **WIDE)


@pytest.fixture(scope="session")
def wide_native_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_native_encoder`, wide enough for four bits."""
    return save_encoder(tmp_path_factory.mktemp("wide") / "wide-native", pooled=False, **WIDE)


@pytest.fixture
def kit(tiny_decoder: Path) -> Callable[..., Any]:
    """Makes a `training_kit.Kit` of the tiny decoder from changed options."""
    from training_kit import OPTIONS, Kit

    def make(*, rows: int = 40, random_b: bool = False, **changes: Any) -> Kit:
        return Kit(tiny_decoder, OPTIONS.model_copy(update=changes), rows=rows, random_b=random_b)

    return make


@pytest.fixture
def intents(tmp_path: Path) -> Path:
    """A CSV of 120 rows and three labels that follow from one word of the text."""
    lines = ["text,label"]
    words = {"card": "lost_card", "transfer": "late_transfer", "pin": "change_pin"}
    for i in range(120):
        word, label = list(words.items())[i % 3]
        lines.append(f"{WORDS[i % 37]} {WORDS[(7 * i) % 41]} my {word} {i} please,{label}")
    path = tmp_path / "intents.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A JSONL of 60 instructions with answers."""
    path = tmp_path / "questions.jsonl"
    colours = ["red", "green", "blue"]
    path.write_text(
        "".join(
            json.dumps(
                {
                    "instruction": f"what colour is number {i}",
                    "input": "",
                    "output": f"the colour is {colours[i % 3]}",
                }
            )
            + "\n"
            for i in range(60)
        )
    )
    return path


@pytest.fixture
def task_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a task file from keyword arguments and returns its path."""
    import yaml

    def write(**fields: Any) -> Path:
        path = tmp_path / "task.yaml"
        path.write_text(yaml.safe_dump({"output": str(tmp_path / "runs"), **fields}))
        return path

    return write
