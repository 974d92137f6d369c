"""What a model is, from its config alone: kind, sizes, parameters.

Knows configs; knows nothing of weights (modules are built on the meta device, without storage).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fitune.errors import ModelError
from fitune.models.source import ModelSource

Kind = Literal["encoder", "decoder", "encoder-decoder"]


@dataclass(frozen=True)
class Architecture:
    """Facts about a model.

    Attributes:
        model_type: the family's name in transformers, e.g. ``"llama"``.
        kind: encoders read both ways and classify; decoders write.
        parameters: of the whole model; tied weights count once.
        layers, hidden, vocabulary: sizes.
        max_length: the most tokens of context the model was made for.
    """

    model_type: str
    kind: Kind
    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    max_length: int


def read_config(source: ModelSource) -> Any:
    """The transformers config of a model.

    Raises:
        ModelError: the config is missing, broken, of an unknown family, or needs remote code.
    """
    from transformers import AutoConfig

    from fitune.models.quiet import quiet

    try:
        with quiet():
            return AutoConfig.from_pretrained(source.location, **source.loading_options())
    except Exception as error:
        raise explain_failure(source, error) from error


def describe(source: ModelSource) -> Architecture:
    """Read the config and count; loads no weights.

    Raises:
        ModelError: see `read_config`.
    """
    config = read_config(source)
    try:
        return describe_config(config, trust_remote_code=source.trust_remote_code)
    except Exception as error:
        raise explain_failure(source, error) from error


def describe_config(config: Any, *, trust_remote_code: bool = False) -> Architecture:
    """As `describe`, from a transformers config."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    from fitune.models.quiet import quiet

    kind = kind_of(config)
    text = config.get_text_config()
    with quiet(), torch.device("meta"):
        factory = AutoModelForCausalLM if kind == "decoder" else AutoModel
        model = factory.from_config(config, trust_remote_code=trust_remote_code)
    return Architecture(
        model_type=config.model_type,
        kind=kind,
        parameters=sum(p.numel() for p in model.parameters()),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        vocabulary=int(text.vocab_size),
        max_length=max_length_of(config),
    )


def kind_of(config: Any) -> Kind:
    """Encoder, decoder or both, by the class it was saved from and, failing that, its family."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    saved = (config.architectures or [""])[0]
    if saved.endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder"
    if saved.endswith("ForMaskedLM") or config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    return "decoder" if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else "encoder"


def max_length_of(config: Any) -> int:
    """Tokens of context; RoBERTa's family counts two positions for padding that no token uses."""
    text = config.get_text_config()
    positions = int(getattr(text, "max_position_embeddings", 0) or 0) or 2048
    padding_offset = config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet"}
    return positions - 2 if padding_offset else positions


def explain_failure(source: ModelSource, error: Exception) -> ModelError:
    text = str(error)
    if "trust_remote_code" in text:
        return ModelError(
            f"model '{source.name}' brings its own Python code, which fitune does not run unasked",
            fix=f"if you trust it, add '{source.name}' to trust_remote_code in the task file",
        )
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return ModelError(
        f"model '{source.name}' cannot be loaded ({first[:200]})",
        fix="check the name and the folder's files, or use another model",
    )
