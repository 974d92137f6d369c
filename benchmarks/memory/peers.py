"""What other tools and the textbook say of a cell.

Knows their rules; knows nothing of traces or measurements. Where a rule does not speak of something
in the cell, it is read in its favour: 16-bit formulas are doubled for fp32, methods that train few
parameters have few gradients and states, and four-bit weights take half a byte.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.memory.cells import Cell

from fitune.memory import textbook
from fitune.memory.familiar import familiar_table
from fitune.training.attention import SHORT_ROWS

ACCELERATE, STATES, ACTIVATIONS, HF_MEM = (
    "accelerate ×4",
    "textbook: states",
    "textbook: states and activations",
    "hf-mem",
)


def peers(cell: Cell, parameters: int, trained: int) -> dict[str, int | None]:
    """Name → bytes; None where the tool says that it does not know.

    Args:
        parameters: how many values the model has.
        trained: how many of them train, those of adapters included.
    """
    states = textbook_states(cell, parameters, trained)
    return {
        ACCELERATE: accelerate(cell),
        STATES: states.total,
        ACTIVATIONS: states.plus(textbook_activations(cell)).total,
        HF_MEM: hf_mem(cell, parameters),
    }


def accelerate(cell: Cell) -> int | None:
    """`accelerate estimate-memory`'s column "Training using Adam", which knows neither methods nor
    batches; N/A for four bits."""
    if cell.training.options.method == "qlora":
        return None
    dtype = {4: "float32", 2: "float16"}[weight_bytes(cell)]
    (row,) = [row for row in familiar_table(cell.config) if row.dtype == dtype]
    return row.adam_bytes


def textbook_states(cell: Cell, parameters: int, trained: int) -> textbook.Textbook:
    """Weights, gradients and optimizer states.

    Adafactor's states count as nothing (a row and a column of each matrix), 8-bit Adam's as two
    bytes a value (Dettmers et al., arXiv:2110.02861).
    """
    options, size = cell.training.options, weight_bytes(cell)
    formula = textbook.training_states(
        parameters, size, textbook.STATES.get(options.optimizer, 0), trained=trained
    )
    terms = dict(formula.terms)
    if options.method == "qlora":
        terms["weights"] = parameters // 2
    if options.optimizer == "adamw-8bit":
        terms["optimizer states"] = 2 * trained
    return dataclasses.replace(formula, terms=terms)


def textbook_activations(cell: Cell) -> textbook.Textbook:
    """Activations of Korthikanti et al.; attention scores count where a plain kernel keeps them."""
    training, config = cell.training, cell.config.get_text_config()
    plain = training.attention == "eager" or (
        training.attention == "auto" and training.seq <= SHORT_ROWS
    )
    recompute = "full" if training.options.checkpointing else "none" if plain else "selective"
    shape: dict[str, Any] = {
        "batch": training.batch,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "recompute": recompute,
    }
    layers, kind = config.num_hidden_layers, _kind(cell)
    formula = textbook.activations(
        layers=layers,
        seq=training.seq,
        vocabulary=config.vocab_size if kind == "decoder" else 0,
        **shape,
    )
    if kind == "encoder-decoder":
        formula = formula.plus(
            textbook.activations(
                layers=getattr(config, "num_decoder_layers", None) or config.decoder_layers,
                seq=training.answer_tokens or training.seq,
                vocabulary=config.vocab_size,
                **shape,
            )
        )
    if training.options.dtype != "fp32":
        return formula
    terms = dict(formula.terms)
    terms["activations"] *= 2  # the logits are fp32 already
    return dataclasses.replace(formula, terms=terms)


def hf_mem(cell: Cell, parameters: int) -> int:
    """What hf-mem 0.5 says that answering needs: weights, and keys and values of all tokens.

    It knows no training, and reads weights files on the Hub; this is its arithmetic (run.py,
    safetensors/metadata.py and kv_cache.py, with `--experimental`) for weights of the cell's dtype.
    It counts keys and values for configs that say these things by these names.
    """
    size, fields, training = weight_bytes(cell), cell.fields, cell.training
    weights = parameters // 2 if training.options.method == "qlora" else parameters * size
    writes = any("ForCausalLM" in name for name in fields.get("architectures", ()))
    if not writes or not {"hidden_size", "num_hidden_layers", "num_attention_heads"} <= {*fields}:
        return weights
    heads = fields["num_attention_heads"]
    return weights + kv_cache_bytes(
        layers=fields["num_hidden_layers"],
        tokens=training.batch * training.seq,
        heads=fields.get("num_key_value_heads", heads),
        head=fields.get("head_dim", fields["hidden_size"] // heads),
        size=size,
    )


def kv_cache_bytes(*, layers: int, tokens: int, heads: int, head: int, size: int) -> int:
    """As hf-mem counts: heads of keys and values, `head` values each, of `size` bytes."""
    return 2 * layers * tokens * heads * head * size


def weight_bytes(cell: Cell) -> int:
    """Of one base weight, before any goes to four bits."""
    from fitune.training.precision import precision

    options = cell.training.options
    decoder = _kind(cell) != "encoder"
    return precision(options.dtype, options.method or "full", decoder=decoder).weights.itemsize


def _kind(cell: Cell) -> str:
    from fitune.models.architecture import kind_of

    return kind_of(cell.config)
