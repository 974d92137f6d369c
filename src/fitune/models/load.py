"""Loads tokenizers, decoders and encoders.

Knows transformers; knows nothing of tasks or of what trains. Weights come from safetensors only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fitune.errors import ModelError
from fitune.models.architecture import explain_failure, read_config
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
            tokenizer = AutoTokenizer.from_pretrained(source.location, **source.loading_options())
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


def load_decoder(source: ModelSource, *, dtype: Any, device: str, config: Any = None) -> Any:
    """A causal language model in `dtype` on `device`, in evaluation mode.

    Args:
        config: used instead of the model's own, as `training_config` makes it.

    Raises:
        ModelError: missing or broken weights.
    """
    from transformers import AutoModelForCausalLM

    return _load(
        AutoModelForCausalLM, source, dtype, device, config=config, new=lambda model, name: False
    )


def load_trunk(source: ModelSource, *, dtype: Any, device: str, config: Any = None) -> Any:
    """An encoder without any head, in `dtype` on `device`, in evaluation mode.

    Args:
        config: used instead of the model's own, as `training_config` makes it.

    Raises:
        ModelError: missing or broken weights.
    """
    from transformers import AutoModel

    # Masked language models are saved without a pooler, and a trunk's is not used.
    return _load(
        AutoModel, source, dtype, device, config=config, new=lambda model, name: "pooler" in name
    )


def load_masked(
    source: ModelSource, *, dtype: Any, device: str, config: Any = None, seed: int = 0
) -> tuple[Any, bool]:
    """An encoder with its head for hidden tokens, and whether that head is new.

    Args:
        config: used instead of the model's own, as `training_config` makes it.
        seed: a head that the weights do not hold is drawn from it.

    Raises:
        ModelError: the architecture has no such head, or weights are missing or broken.
    """
    import torch
    from transformers import AutoModelForMaskedLM

    drawn: list[str] = []

    def new(model: Any, name: str) -> bool:
        drawn.append(name)
        return _on_top(model, name)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _load(AutoModelForMaskedLM, source, dtype, device, config=config, new=new)
    return model, bool(drawn)


def load_sequence_classifier(
    source: ModelSource,
    labels: tuple[str, ...],
    *,
    dtype: Any,
    device: str,
    config: Any = None,
) -> Any:
    """An encoder with transformers' own classification head for `labels`.

    The head's output layer is new (random); a pooler that the checkpoint holds is kept.

    Raises:
        ModelError: the architecture has no such head, or weights are missing or broken.
    """
    from transformers import AutoModelForSequenceClassification

    config = config or read_config(source)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    return _load(
        AutoModelForSequenceClassification,
        source,
        dtype,
        device,
        config=config,
        new=_on_top,
        ignore_mismatched_sizes=True,
    )


def _on_top(model: Any, name: str) -> bool:
    """Whether a tensor belongs to a head."""
    return "pooler" in name or not name.startswith(f"{model.base_model_prefix}.")


def _load(
    factory: Any,
    source: ModelSource,
    dtype: Any,
    device: str,
    *,
    config: Any,
    new: Callable[[Any, str], bool],
    **options: Any,
) -> Any:
    """`new` says of which tensors it is right that the weights do not hold them."""
    try:
        with quiet():
            model, info = factory.from_pretrained(
                source.location,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                **({} if config is None else {"config": config}),
                **source.loading_options(),
                **options,
            )
    except Exception as error:
        raise explain_failure(source, error) from error
    # transformers would draw them at random and only warn.
    absent = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    lacking = sorted(name for name in absent if not new(model, name))
    if lacking:
        raise ModelError(
            f"the weights of '{source.name}' lack {len(lacking):,} tensors that its config.json "
            f"describes, such as {lacking[0]}",
            fix="get the whole model again, or correct its config.json",
        )
    if source.hub_id:  # an adapter notes its base by a name that others can resolve, too
        model.name_or_path = source.hub_id
    return model.to(device).eval()


def training_config(source: ModelSource, dropout: float) -> Any:
    """The model's config for training: `dropout` on hidden values, none on attention weights.

    Dropout on attention weights keeps attention off the CPU's fused kernel. That on hidden values
    is off by default, too: on held-out rows of banking77 it made no difference beyond chance (two
    seeds), at 15 % of a step's time on one core.
    """
    config = read_config(source)
    set_dropout(config, dropout)
    return config


def set_dropout(config: Any, dropout: float) -> None:
    """As `training_config`, in a config at hand."""
    for name, value in list(vars(config).items()):
        if isinstance(value, float | int) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0 if "att" in name else dropout)
