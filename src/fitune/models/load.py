"""Loads tokenizers, decoders and encoders.

Knows transformers; knows nothing of tasks or of what trains. Weights come from safetensors only.
"""

from __future__ import annotations

from typing import Any

from fitune.errors import ModelError
from fitune.models.architecture import explain_failure
from fitune.models.quiet import quiet
from fitune.models.source import ModelSource


def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer, with a padding token (the end-of-text token where it has none).

    Raises:
        ModelError: missing or broken tokenizer files.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.location, **source.hub_options())
    except Exception as error:
        raise explain_failure(source, error) from error
    if tokenizer.pad_token is None:
        # Padding is always masked, so the token's identity has no influence on any result.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError(
            f"the tokenizer of '{source.name}' has no padding, end-of-text or unknown token",
            fix="add a pad_token to its tokenizer_config.json",
        )
    return tokenizer


def load_decoder(source: ModelSource, *, dtype: Any, device: str) -> Any:
    """A causal language model in `dtype` on `device`, in evaluation mode.

    Raises:
        ModelError: missing or broken weights.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, source, dtype, device)


def load_trunk(source: ModelSource, *, dtype: Any, device: str) -> Any:
    """An encoder without any head, in `dtype` on `device`, in evaluation mode.

    Raises:
        ModelError: missing or broken weights.
    """
    from transformers import AutoModel

    return _load(AutoModel, source, dtype, device)


def load_sequence_classifier(
    source: ModelSource, labels: tuple[str, ...], *, dtype: Any, device: str
) -> Any:
    """An encoder with transformers' own classification head for `labels`.

    The head's output layer is new (random); a pooler that the checkpoint holds is kept.

    Raises:
        ModelError: the architecture has no such head, or weights are missing or broken.
    """
    from transformers import AutoModelForSequenceClassification

    return _load(
        AutoModelForSequenceClassification,
        source,
        dtype,
        device,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,
    )


def _load(factory: Any, source: ModelSource, dtype: Any, device: str, **options: Any) -> Any:
    try:
        with quiet():
            model = factory.from_pretrained(
                source.location,
                dtype=dtype,
                use_safetensors=True,
                **source.hub_options(),
                **options,
            )
    except Exception as error:
        raise explain_failure(source, error) from error
    return model.to(device).eval()


def set_dropout(model: Any, probability: float) -> None:
    """Set every dropout of a model: modules, and the numbers that attention functions read."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name in ("attention_dropout", "dropout_prob", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, probability)
