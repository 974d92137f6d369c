"""fitune's objectives again, token by token in float64, and the rows that both sides are given."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fitune.config import Finetuned
from fitune.data.encoded import Encoded, Reason
from fitune.training.objectives import Classify, Dpo, Masked, Seq2Seq, Sft
from fitune.training.objectives.dpo import EncodedPair, pair_log_probs
from fitune.training.objectives.head import head_is_last
from fitune.training.packing import choose_layout, rows_apart
from parity_kit import LABELS, WORDS, Logits

ROWS, STEPS = 8, 4
"""Rows of a step, and steps."""

BETA, SMOOTHING = 0.3, 0.1
WEIGHTS = (1.0, 0.5, 2.0, 1.0, 3.0)
"""Of the labels."""


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def log_probs(logits: torch.Tensor, places: Sequence[tuple[int, int, int]]) -> list[torch.Tensor]:
    """Of each (row, position, token): how likely the token is said at the position."""
    said = logits.log_softmax(dim=-1)
    return [said[row, at, token] for row, at, token in places]


def sft(logits: Logits, items: Sequence[Any]) -> torch.Tensor:
    """Mean over learned tokens, each said by the token before it."""
    found = log_probs(
        logits(*padded([item.tokens for item in items])),
        [
            (row, at - 1, token)
            for row, item in enumerate(items)
            for at, (token, reason) in enumerate(zip(item.tokens, item.reasons, strict=True))
            if at and reason.learned
        ],
    )
    return -torch.stack(found).mean()


def sums(logits: Logits, items: Sequence[Any]) -> list[torch.Tensor]:
    """The log-probability of each row's learned tokens."""
    return [-sft(logits, [item]) * sum(item.learned[1:]) for item in items]


def dpo(
    logits: Logits, pairs: Sequence[Any], beta: float, reference: Sequence[tuple[float, float]]
) -> torch.Tensor:
    """Equation 7 of arXiv:2305.18290."""
    chosen = sums(logits, [pair.chosen for pair in pairs])
    rejected = sums(logits, [pair.rejected for pair in pairs])
    losses = [
        -torch.log(1 / (1 + torch.exp(-beta * ((c - before_c) - (r - before_r)))))
        for c, r, (before_c, before_r) in zip(chosen, rejected, reference, strict=True)
    ]
    return torch.stack(losses).mean()


def masked(
    logits: Logits, seen: Sequence[Sequence[int]], hidden: Sequence[tuple[int, int, int]]
) -> torch.Tensor:
    return -torch.stack(log_probs(logits(*padded(seen)), hidden)).mean()


def classify(
    logits: Logits,
    items: Sequence[Any],
    labels: Sequence[int],
    smoothing: float,
    weights: Sequence[float],
) -> torch.Tensor:
    """A share of the weight goes to all labels alike (arXiv:1512.00567, section 7)."""
    said = logits(*padded([item.tokens for item in items])).log_softmax(dim=-1)
    total = said.new_zeros(())
    for row, label in zip(said, labels, strict=True):
        total = total - (1 - smoothing) * weights[label] * row[label]
        for other, weight in enumerate(weights):
            total = total - smoothing / len(weights) * weight * row[other]
    return total / sum(weights[label] for label in labels)


def seq2seq(
    logits: Logits, items: Sequence[Any], answers: Sequence[Sequence[int]], start: int
) -> torch.Tensor:
    """Each token of an answer, said by those before it, of which `start` is the first."""
    before, _ = padded([[start, *answer[:-1]] for answer in answers])
    places = [(r, at, t) for r, answer in enumerate(answers) for at, t in enumerate(answer)]
    ids, mask = padded([item.tokens for item in items])
    return -torch.stack(log_probs(logits(ids, mask, before), places)).mean()


# What both sides are given


ALIKE = (5, 9, 4, 7)
"""What rows with an answer begin with: an instruction."""


def sentences(count: int, seed: int, learn: Callable[[int, int], Reason]) -> list[Encoded]:
    """Rows of one to a dozen tokens, with `learn` of (place, length)."""
    drawn = random.Random(seed)
    rows = []
    for i in range(count):
        length = 2 + (i * 5) % 11
        tokens = tuple(drawn.randrange(3, WORDS) for _ in range(length))
        rows.append(Encoded(tokens, tuple(learn(at, length) for at in range(length))))
    return rows


def answered(count: int, seed: int) -> list[Encoded]:
    """The second half of each row is its answer; before the first stands what all begin with."""

    def learn(at: int, length: int) -> Reason:
        return Reason.ANSWER if at >= length // 2 else Reason.PROMPT

    return [
        Encoded(ALIKE + row.tokens, (Reason.PROMPT,) * len(ALIKE) + row.reasons)
        for row in sentences(count, seed, learn)
    ]


def preferred(count: int) -> list[EncodedPair]:
    """Two answers of different lengths after the same prompt."""
    made = []
    for chosen, other in zip(answered(count, 1), answered(count, 2)[::-1], strict=True):
        start = chosen.reasons.index(Reason.ANSWER)
        prompt = chosen.tokens[:start], chosen.reasons[:start]
        answer = other.tokens[len(ALIKE) :][: 1 + len(other) // 2]
        rejected = Encoded(prompt[0] + answer, prompt[1] + (Reason.ANSWER,) * len(answer))
        made.append(EncodedPair(chosen, rejected))
    return made


def laid_out(model: Any, options: Finetuned) -> dict[str, bool]:
    """How rows lie in a batch, as a decoder's tuner decides."""
    packed, shared = choose_layout(model, options)
    return {"packed": packed, "shared": shared}


Loss = Callable[[Logits, Sequence[int]], torch.Tensor]


def of_tokens(model: Any, options: Finetuned, items: list[Encoded]) -> tuple[Any, list[int], Loss]:
    objective = Sft(
        items,
        pad=0,
        **laid_out(model, options),
        fused=options.fused and head_is_last(model),
    )
    loss = lambda logits, rows: sft(logits, [items[i] for i in rows])  # noqa: E731
    return objective, [len(item) for item in items], loss


def given_sft(model: Any, options: Finetuned, reference: Logits) -> tuple[Any, list[int], Loss]:
    return of_tokens(model, options, answered(ROWS * STEPS, 0))


def given_pretrain(
    model: Any, options: Finetuned, reference: Logits
) -> tuple[Any, list[int], Loss]:
    items = sentences(ROWS * STEPS, 0, lambda at, length: Reason.DOCUMENT)
    return of_tokens(model, options, items)


def given_dpo(model: Any, options: Finetuned, reference: Logits) -> tuple[Any, list[int], Loss]:
    """Each side takes what its own model says before the first step as the reference."""
    items = preferred(ROWS * STEPS)
    objective = Dpo(items, pad=0, beta=BETA, **laid_out(model, options))
    with torch.no_grad():
        batch = objective.batch(range(len(items)))
        with rows_apart(model, batch):
            objective.reference = pair_log_probs(model, batch)
        before = [
            (float(chosen), float(rejected))
            for chosen, rejected in zip(
                sums(reference, [item.chosen for item in items]),
                sums(reference, [item.rejected for item in items]),
                strict=True,
            )
        ]

    def loss(logits: Logits, rows: Sequence[int]) -> torch.Tensor:
        return dpo(logits, [items[i] for i in rows], BETA, [before[i] for i in rows])

    return objective, [item.batch_tokens for item in items], loss


def given_masked(model: Any, options: Finetuned, reference: Logits) -> tuple[Any, list[int], Loss]:
    items = sentences(ROWS * STEPS, 0, lambda at, length: Reason.TEXT)
    objective = Masked(items, pad=0, mask=3, words=range(4, WORDS), seed=0)

    def loss(logits: Logits, rows: Sequence[int]) -> torch.Tensor:
        seen = [objective.hide(row) for row in rows]
        hidden = [
            (i, at, items[row].tokens[at])
            for i, (row, (_, places)) in enumerate(zip(rows, seen, strict=True))
            for at in places
        ]
        return masked(logits, [tokens for tokens, _ in seen], hidden)

    return objective, [len(item) for item in items], loss


def given_classify(
    model: Any, options: Finetuned, reference: Logits
) -> tuple[Any, list[int], Loss]:
    items = sentences(ROWS * STEPS, 0, lambda at, length: Reason.TEXT)
    labels = [(i * 7) % LABELS for i in range(len(items))]
    objective = Classify(items, labels, pad=0, label_smoothing=SMOOTHING, weights=WEIGHTS)

    def loss(logits: Logits, rows: Sequence[int]) -> torch.Tensor:
        chosen = [labels[i] for i in rows]
        return classify(logits, [items[i] for i in rows], chosen, SMOOTHING, WEIGHTS)

    return objective, [len(item) for item in items], loss


def given_seq2seq(model: Any, options: Finetuned, reference: Logits) -> tuple[Any, list[int], Loss]:
    items, said_of = (
        sentences(ROWS * STEPS, seed, lambda at, length: Reason.PROMPT) for seed in (0, 1)
    )
    said = [item.tokens for item in said_of][::-1]
    start = model.config.decoder_start_token_id

    def loss(logits: Logits, rows: Sequence[int]) -> torch.Tensor:
        return seq2seq(logits, [items[i] for i in rows], [said[i] for i in rows], start)

    return Seq2Seq(items, said, pad=0), [len(item) for item in items], loss


GIVEN: dict[str, Callable[..., tuple[Any, list[int], Loss]]] = {
    "sft": given_sft,
    "pretrain": given_pretrain,
    "dpo": given_dpo,
    "masked": given_masked,
    "classify": given_classify,
    "seq2seq": given_seq2seq,
}
