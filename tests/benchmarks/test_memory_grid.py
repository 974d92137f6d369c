"""What the memory grid says about itself, and the arithmetic of those it is compared with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.memory.cells import parse, read_cells
from benchmarks.memory.measure import account
from benchmarks.memory.peers import kv_cache_bytes, peers

# Families that the tracer was tried on while it was built.
BUILT_WITH = {
    "llama", "bert", "gpt2", "t5", "distilbert", "qwen3", "gemma3_text", "modernbert", "mixtral",
    "deberta-v2",
}  # fmt: skip


def test_the_grid_covers_what_is_promised() -> None:
    cells = read_cells()
    trainings = [cell.training for cell in cells]
    options = [training.options for training in trainings]
    families = [cell.config.model_type for cell in cells]
    assert len({cell.name for cell in cells}) == len(cells) >= 72
    assert {o.method for o in options} == {"full", "freeze", "head", "lora", "dora", "qlora"}
    assert {o.optimizer for o in options} == {
        "sgd", "momentum", "adamw", "adafactor", "adamw-8bit",
    }  # fmt: skip
    assert {o.dtype for o in options} == {"fp32", "bf16", "pure-bf16"}
    assert {o.checkpointing for o in options} == {training.padded for training in trainings}
    assert {training.attention for training in trainings} == {"auto", "eager", "sdpa"}
    assert {(1, 16), (1, 2048), (16, 32), (4, 512)} <= {(t.batch, t.seq) for t in trainings}
    assert sum(family not in ("llama", "bert") for family in families) >= len(cells) / 2
    assert sum(family not in BUILT_WITH for family in families) >= len(cells) / 3


def test_a_line_is_read_whole() -> None:
    cell = parse("gpt2   freeze=6 momentum bf16 2×64   padded micro=3 answers=5 eager")
    assert cell.name == "gpt2 freeze=6 momentum bf16 2×64 padded micro=3 answers=5 eager"
    training = cell.training
    assert (training.batch, training.seq, training.micro_batches) == (2, 64, 3)
    assert (training.padded, training.answer_tokens, training.attention) == (True, 5, "eager")
    assert (training.options.method, training.options.freeze_layers) == ("freeze", 6)
    with pytest.raises(AssertionError, match="unknown words"):
        parse("gpt2 full adamw fp32 2×64 pedded")


def test_the_allocators_account_is_exact() -> None:
    import torch

    kept = []

    def work() -> None:
        kept.append(torch.empty(1000, dtype=torch.float32))
        passing = torch.empty(5000, dtype=torch.uint8)
        del passing
        kept.append(torch.empty(3000, dtype=torch.uint8))

    # Sizes above are multiples of 64 bytes or not: the account counts what was asked for.
    assert account(work) == (4000 + 3000, 4000 + 5000)


def test_peers_arithmetic() -> None:
    """accelerate's and the textbook's from published parameter counts; hf-mem's from its README:
    MiniMax-M2 (62 layers, 8 heads of 128, 196,608 tokens, a byte a value)."""
    assert kv_cache_bytes(layers=62, tokens=196_608, heads=8, head=128, size=1) == 24_964_497_408
    said = peers(parse("gpt2 full adamw fp32 2×8"), 124_439_808, 124_439_808)
    assert said["accelerate ×4"] == 16 * 124_439_808
    assert said["textbook: states"] == 16 * 124_439_808
    # 12 layers of 16 × 768 × (34 + 5 · 12 · 8 / 768) twice (fp32), norm and head inputs, logits
    layers = 12 * (34 * 16 * 768 + 5 * 12 * 8 * 8 * 2)
    logits = 4 * 16 * 50_257
    assert said["textbook: states and activations"] == (
        16 * 124_439_808 + 2 * (layers + 4 * 16 * 768) + logits
    )
    assert said["hf-mem"] == 4 * 124_439_808  # of names as in GPT-2's config it knows nothing
    said = peers(parse("gpt2 qlora adamw bf16 2×8"), 1_000, 100)
    assert said["accelerate ×4"] is None
    assert said["textbook: states"] == 500 + 100 * 3 * 2
    said = peers(parse("gpt2 full adamw-8bit fp32 2×8"), 1_000, 100)
    assert said["textbook: states"] == 4_000 + 400 + 200
    said = peers(parse("smollm2-135m lora adamw fp32 2×8"), 1_000, 100)
    assert said["hf-mem"] == 4_000 + 2 * 30 * 16 * 3 * 64 * 4
