"""Textbook formulas beside the traced truth: where the two part, and why.

Knows estimates, formulas and a model's sizes; knows nothing of a running machine. Each reason holds
the bytes that it is about; none is given where formula and trace agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fitune.config import Finetuned
from fitune.memory import textbook
from fitune.memory.estimate import Estimate
from fitune.memory.options import Inference, Training
from fitune.memory.textbook import STATES, TERMS, Textbook
from fitune.sizes import GIB
from fitune.training.precision import FROZEN_BASE, LOW_RANK

AGREES = 0.02
"""Share of the larger, up to which two figures count as the same."""


@dataclass(frozen=True)
class Sizes:
    """What formulas ask of a model.

    Attributes:
        parameters: adapters not counted.
        head: those of the output head alone; 0 where it shares the embeddings', or there is none.
        layers, hidden, heads, vocabulary, inner: inner is the width of the MLP.
    """

    parameters: int
    head: int
    layers: int
    hidden: int
    heads: int
    vocabulary: int
    inner: int | None


@dataclass(frozen=True)
class Explanation:
    """What the formulas say, and why the trace says otherwise.

    Attributes:
        formulas: the one that speaks of the same terms first.
        traced: term of the textbook → bytes at the peak.
        reasons: sentences.
        weights: ways of counting the same weights → bytes.
    """

    formulas: tuple[Textbook, ...]
    traced: dict[str, int]
    reasons: tuple[str, ...]
    weights: dict[str, int]


def explain_training(estimate: Estimate, training: Training, sizes: Sizes) -> Explanation:
    """The formulas for a training step, and where they part from its trace."""
    options = training.options
    width = 4 if options.dtype == "fp32" else 2
    own = textbook.training_states(
        sizes.parameters, width, STATES.get(options.optimizer, 2), trained=estimate.trainable
    )
    eager = training.attention == "eager"
    kept = textbook.activations(
        layers=sizes.layers,
        seq=training.seq,
        batch=training.batch * training.sequences,
        hidden=sizes.hidden,
        heads=sizes.heads,
        vocabulary=sizes.vocabulary,
        recompute="full" if int(options.checkpointing) == 1 else "none" if eager else "selective",
    )
    traced = in_textbook_terms(estimate)
    formula = own.plus(kept)
    everything = {
        name: max(moment.terms.get(name, 0) for moment in estimate.timeline)
        for name in ("gradients", "optimizer states")
    }
    reasons = [
        *_of_weights(traced, formula, options, estimate),
        *_of_gradients(traced, formula, everything["gradients"], estimate),
        *_of_states(traced, formula, options, estimate),
        *_of_activations(traced, formula, training, sizes, estimate),
        *_of_logits(traced, formula, training, sizes),
        *_of_the_rest(traced, estimate),
    ]
    return Explanation(
        formulas=(
            formula,
            textbook.mixed_precision_adam(sizes.parameters),
            textbook.four_times((sizes.parameters - sizes.head) * width),
        ),
        traced=traced,
        reasons=tuple(reasons),
        weights=weights_counted(sizes),
    )


def explain_inference(estimate: Estimate, inference: Inference, sizes: Sizes) -> Explanation:
    """The formula for answering, and where it parts from the trace."""
    width = 4 if inference.dtype == "fp32" else 2
    formula = textbook.inference(sizes.parameters, width)
    traced = in_textbook_terms(estimate)
    cache = estimate.terms.get("kv cache", 0)
    beyond = estimate.peak_bytes - traced["weights"]
    share = beyond / traced["weights"]
    reasons = [
        f"The formula adds a fifth of the weights, {gb(formula.terms['the rest'])}, whatever is "
        f"asked. Here {gb(beyond)} come on top ({share:.0%}): "
        + (f"{gb(cache)} of cached keys and values, " if cache else "")
        + f"{gb(beyond - cache)} of everything else at the peak. They grow with "
        f"requests × context ({inference.requests:,} × {inference.context:,}), the weights do not."
    ]
    if not _agree(traced["weights"], formula.terms["weights"]):
        reasons.append(
            f"Weights and buffers take {gb(traced['weights'])}, not "
            f"{gb(formula.terms['weights'])}: not all of them are held in {inference.dtype}."
        )
    return Explanation((formula,), traced, tuple(reasons), weights_counted(sizes))


def weights_counted(sizes: Sizes) -> dict[str, int]:
    """The figures that circulate for one and the same model, in 16 bit, by how they count.

    Of Llama-2-13B: 26.03 GB; 25.70 GB (23.94 GiB) without the head; 31.2 GB with a fifth more.
    """
    counted = {"parameters × 2 bytes": 2 * sizes.parameters}
    if sizes.head:
        counted["… without the output head, as accelerate estimate-memory counts"] = 2 * (
            sizes.parameters - sizes.head
        )
    counted["… × 1.2, the rule for inference"] = textbook.inference(sizes.parameters, 2).total
    states = textbook.training_states(sizes.parameters, 2, STATES["adamw"]).terms
    counted["gradients and Adam's two states, × 3"] = (
        states["gradients"] + states["optimizer states"]
    )
    return counted


def in_textbook_terms(estimate: Estimate) -> dict[str, int]:
    """Bytes at the peak under the names that formulas use."""
    sums = dict.fromkeys(TERMS, 0)
    for name, size in estimate.terms.items():
        sums[_textbook_name(name)] += size
    return sums


def _textbook_name(term: str) -> str:
    if term in ("weights", "adapters"):
        return "weights"
    if term in ("gradients", "optimizer states"):
        return term
    if term.startswith("activations") or term == "recomputed activations":
        return "activations"
    return "logits and loss" if term in ("logits and loss", "logits") else "the rest"


def gb(size: float) -> str:
    """Bytes in GiB, or in MiB below a tenth of one."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _agree(one: float, other: float) -> bool:
    return abs(one - other) <= AGREES * max(one, other)


def _of_weights(
    traced: dict[str, int], formula: Textbook, options: Finetuned, estimate: Estimate
) -> Iterator[str]:
    said, found = formula.terms["weights"], traced["weights"]
    adapters = estimate.terms.get("adapters", 0)
    if _agree(said, found):
        return
    why = "not all of them are held in the dtype that the formula takes for all"
    if options.method == "qlora":
        why = (
            "linear layers are held in 4.13 bits a weight, scales included; embeddings, norms and "
        )
        why += "the head are not"
    elif options.dtype == "bf16" and options.method not in FROZEN_BASE:
        why = "what trains is held in fp32, and bf16 is what matrices are multiplied in: an update "
        why += "is smaller than a bf16 weight's last digit"
    beside = f", {gb(adapters)} of them adapters" if adapters else ""
    yield f"Weights take {gb(found)}{beside}, not {gb(said)}: {why}."


def _of_gradients(
    traced: dict[str, int], formula: Textbook, all_of_them: int, estimate: Estimate
) -> Iterator[str]:
    said, found = formula.terms["gradients"], traced["gradients"]
    phase = estimate.peak_at.phase
    if not _agree(said, all_of_them):
        yield (
            f"All gradients together take {gb(all_of_them)}, not {gb(said)}: "
            + ("each has the dtype of its fp32 parameter." if all_of_them > said else
               "none is alive longer than it is needed.")
        )  # fmt: skip
    if not _agree(found, all_of_them):
        yield (
            f"At the peak, in the {phase} phase, {gb(found)} of gradients are alive: they come to "
            "be layer by layer while activations go, so the two are never there in full together."
        )


def _of_states(
    traced: dict[str, int], formula: Textbook, options: Finetuned, estimate: Estimate
) -> Iterator[str]:
    said, found = formula.terms["optimizer states"], traced["optimizer states"]
    if _agree(said, found):
        return
    why = {
        "adafactor": "Adafactor keeps a sum for each row and each column of a matrix, and no value "
        "for each parameter",
        "adamw-8bit": "two values of 8 bits a parameter and their scales",
        "paged-adamw-8bit": "two values of 8 bits a parameter and their scales",
    }.get(options.optimizer, "they have the dtype of the parameters that train, which is fp32")
    yield (
        f"Optimizer states take {gb(found)} for {estimate.trainable:,} trained parameters, not "
        f"{gb(said)}: {why}."
    )


def _of_activations(
    traced: dict[str, int], formula: Textbook, training: Training, sizes: Sizes, estimate: Estimate
) -> Iterator[str]:
    said, found = formula.terms["activations"], traced["activations"]
    if _agree(said, found):
        return
    options, phase = training.options, estimate.peak_at.phase
    most = max(
        sum(size for name, size in moment.terms.items() if _textbook_name(name) == "activations")
        for moment in estimate.timeline
    )
    whys = []
    if most > found * (1 + AGREES):
        whys.append(f"at the peak, in the {phase} phase, not all are alive (at most {gb(most)})")
    if options.method in ("freeze", "head"):
        whys.append("what lies below the lowest layer that trains keeps nothing")
    if options.method in LOW_RANK:
        whys.append("adapters keep what they read and what their first matrix makes of it")
    if options.dtype == "fp32":
        whys.append("the formula counts 2 bytes a value, and these have 4")
    if options.dropout == 0:
        whys.append("there is no dropout, whose masks and copies the formula counts")
    if sizes.inner and sizes.inner != 4 * sizes.hidden:
        ratio = sizes.inner / sizes.hidden
        whys.append(f"the MLP is {ratio:.2g} times as wide as the model, where GPT's is 4 times")
    if training.attention != "eager" and not options.checkpointing:
        whys.append("fused attention keeps no scores")
    if options.checkpointing:
        whys.append("the layer that is computed again has all of its own")
    yield f"Activations take {gb(found)}, not {gb(said)}: {'; '.join(whys)}."


def _of_logits(
    traced: dict[str, int], formula: Textbook, training: Training, sizes: Sizes
) -> Iterator[str]:
    said, found = formula.terms["logits and loss"], traced["logits and loss"]
    if _agree(said, found) or not said:
        return
    one = 4 * training.batch * training.sequences * training.seq * sizes.vocabulary
    if found > said:
        yield (
            f"Logits and loss take {gb(found)}, not {gb(said)}: that is {found / one:.1f} times "
            "all logits in fp32. Log-softmax and its gradient stand beside them for a moment."
        )
        return
    some = training.answer_tokens is not None
    why = "only learned tokens go through the output head" if some else (
        "they are not all alive at the peak"
    )  # fmt: skip
    yield f"Logits and loss take {gb(found)}, not {gb(said)}: {why}."


def _of_the_rest(traced: dict[str, int], estimate: Estimate) -> Iterator[str]:
    average = estimate.terms.get("averaged weights", 0)
    if average:
        yield f"No formula speaks of the {gb(average)} of averaged weights (ema)."
    passing = traced["the rest"] - average
    if passing > AGREES * sum(traced.values()):
        yield (
            f"No formula speaks of {gb(passing)} that operations hold for a moment "
            "(results on their way, the batch)."
        )


def sizes_of(config: Any, *, parameters: int, head: int) -> Sizes:
    """From a transformers config.

    Args:
        parameters: of the model, adapters not counted.
        head: parameters of the output head that are nobody else's.
    """
    text = config.get_text_config()
    layers = int(text.num_hidden_layers)
    return Sizes(
        parameters=parameters,
        head=head,
        layers=layers + int(getattr(text, "num_decoder_layers", None) or 0),
        hidden=int(text.hidden_size),
        heads=int(text.num_attention_heads),
        vocabulary=int(text.vocab_size) if head or _writes(config) else 0,
        inner=getattr(text, "intermediate_size", None),
    )


def _writes(config: Any) -> bool:
    from fitune.models.architecture import kind_of

    return kind_of(config) != "encoder"
