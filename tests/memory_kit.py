"""Small models of many families, for tests of memory."""

from __future__ import annotations

from typing import Any

from fitune.config import Finetuned
from fitune.memory.options import Training
from fitune.models.bundled import bundled_config, find_bundled


def bundled(name: str) -> Any:
    """The transformers config of a model of the catalogue."""
    found = find_bundled(name)
    assert found is not None
    return bundled_config(found)


def family(name: str, layers: int = 6) -> Any:
    """The transformers config of a small model."""
    import transformers

    gqa = {
        "vocab_size": 3000,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    bert = {
        "vocab_size": 3000,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }
    made = {
        "llama": lambda: transformers.LlamaConfig(**gqa),
        "qwen3": lambda: transformers.Qwen3Config(**gqa, head_dim=16),
        "gemma3": lambda: transformers.Gemma3TextConfig(**gqa, head_dim=16, sliding_window=64),
        "mixtral": lambda: transformers.MixtralConfig(**gqa, num_local_experts=4),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=3000, n_embd=64, n_layer=layers, n_head=4
        ),
        "bert": lambda: transformers.BertConfig(**bert),
        "distilbert": lambda: transformers.DistilBertConfig(
            vocab_size=3000, dim=64, n_layers=layers, n_heads=4, hidden_dim=96
        ),
        "t5": lambda: transformers.T5Config(
            vocab_size=3000,
            d_model=64,
            d_kv=16,
            num_heads=4,
            num_layers=layers,
            d_ff=96,
            decoder_start_token_id=0,
        ),
    }
    config = made[name]()
    config.architectures = [
        {
            "llama": "LlamaForCausalLM",
            "qwen3": "Qwen3ForCausalLM",
            "gemma3": "Gemma3ForCausalLM",
            "mixtral": "MixtralForCausalLM",
            "gpt2": "GPT2LMHeadModel",
            "bert": "BertForMaskedLM",
            "distilbert": "DistilBertForMaskedLM",
            "t5": "T5ForConditionalGeneration",
        }[name]
    ]
    return config


def training(
    *,
    batch: int = 2,
    seq: int = 48,
    packed: bool = True,
    padded: bool = False,
    micro_batches: int = 1,
    segments: int = 1,
    shared_prefix: int = 0,
    answer_tokens: int | None = None,
    **options: Any,
) -> Training:
    return Training(
        Finetuned(**{"method": "full", "dtype": "fp32", **options}),
        batch=batch,
        seq=seq,
        packed=packed,
        padded=padded,
        micro_batches=micro_batches,
        segments=segments,
        shared_prefix=shared_prefix,
        answer_tokens=answer_tokens,
    )


def measured(config: Any, asked: Training) -> int:
    """The peak of two real steps and an evaluation, by the CPU allocator's account."""
    from fitune.memory.measure import allocator_peak
    from fitune.memory.scenario import apply_method, assemble, build_model, ready

    model = ready(apply_method(build_model(config, asked), asked), asked)
    held = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in [*model.parameters(), *model.buffers()]
    }
    kept = []

    def work() -> None:
        scenario = assemble(model, asked)
        kept.append(scenario)  # its optimizer's states are still there after the last step
        scenario.step()
        scenario.step()
        scenario.evaluate()

    return sum(held.values()) + allocator_peak(work)
