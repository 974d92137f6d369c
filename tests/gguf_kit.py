"""A small GGUF file, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VOCABULARY = 3000


def write(path: Path, *, architecture: str = "llama", vocab_size: bool = True) -> Path:
    """A small model of two tensors, with a vocabulary."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(3)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    if vocab_size:
        writer.add_vocab_size(VOCABULARY)
    writer.add_token_list([f"token {i}" for i in range(VOCABULARY)])
    writer.add_token_scores([0.5] * VOCABULARY)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_chat_template("x" * 5000)
    writer.add_array("general.languages", ["en", "de"])
    writer.add_tensor("token_embd.weight", np.zeros((VOCABULARY, 64), dtype=np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((96, 64), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
