"""How likely a decoder finds given answers after given prompts.

Knows decoders and token ids; knows nothing of labels, rows or templates. What prompts share at
their beginning (instruction, examples) is computed once; all answers of a prompt are computed in
one pass, as branches of a tree in which each sees the prompt and its own tokens only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fitune.models.virtual_tokens import cache_name, virtual_cache, virtual_tokens

PROMPT_TOKENS = 2048
"""Most prompt tokens in one forward pass: wide enough for full matrix speed on a CPU."""

NODES = 16
"""Rows of logits that are widened to float32 together: 3 MiB for 49,152 tokens."""


def score_answers(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    pad: int,
    only: Sequence[Sequence[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    tree: bool | None = None,
) -> np.ndarray:
    """The log-likelihood of each answer after each prompt.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompts: token ids; each at least one token.
        answers: token ids, the same for all prompts; each at least one token.
        only: for each prompt, the answers (by number, at least one) to look at; None for all.
        tree: compute with the shared prefix and the answer tree (True), or each pair by itself
            (False); None takes the tree where the architecture allows it.

    Returns:
        ``[prompts, answers]`` float64: sums of natural-log probabilities over an answer's tokens;
        minus infinity for answers that were not looked at.
    """
    if not prompts:
        return np.empty((0, len(answers)))
    allowed = supports_tree(model) if tree is None else tree
    score = _score_tree if allowed else _score_pairs
    looked = only if only is not None else [range(len(answers))] * len(prompts)
    with torch.inference_mode():
        return score(model, prompts, answers, looked, pad, progress)


def supports_tree(model: Any) -> bool:
    """Whether attention is full, maskable and told its positions, so that branches can share.

    Sliding windows count cached tokens by place and not by position, recurrent states cannot
    branch, and ALiBi derives positions from the mask: those take the plain path.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    kinds |= set(getattr(config, "attention_layers", None) or []) - {"global"}  # GPT-Neo's words
    return (
        "position_ids" in inspect.signature(unwrap(model).forward).parameters
        and kinds == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "alibi", False)
        and not getattr(unwrap(model), "_is_stateful", False)
        and config._attn_implementation in ("sdpa", "eager")
    )


@dataclass(frozen=True)
class _Tree:
    """Answers with shared beginnings merged: node 0 is the prompt's last token.

    Attributes:
        tokens: the token of each node after the root, ``[nodes]``.
        depth: how many tokens a node stands after the prompt's last, ``[nodes]``.
        sees: ``[nodes, nodes]`` bool, whether a node (row) attends to another (column).
        at, predicted, answer: of every token of every answer, the node that predicts it (0: the
            root), the token, and the answer's number.
    """

    tokens: torch.Tensor
    depth: torch.Tensor
    sees: torch.Tensor
    at: torch.Tensor
    predicted: torch.Tensor
    answer: np.ndarray


def _grow(answers: Sequence[Sequence[int]], looked: Sequence[int]) -> _Tree:
    nodes: dict[tuple[int, ...], int] = {}
    steps: list[tuple[int, int, int]] = []
    for number in looked:
        answer = answers[number]
        steps.append((0, answer[0], number))
        for end in range(1, len(answer)):  # the last token is predicted, never read
            node = nodes.setdefault(tuple(answer[:end]), len(nodes))
            steps.append((node + 1, answer[end], number))
    sees = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
    for prefix, node in nodes.items():
        for end in range(1, len(prefix) + 1):
            sees[node, nodes[prefix[:end]]] = True
    at, predicted, answer_of = zip(*steps, strict=True)
    return _Tree(
        tokens=torch.tensor([prefix[-1] for prefix in nodes], dtype=torch.int64),
        depth=torch.tensor([len(prefix) for prefix in nodes], dtype=torch.int64),
        sees=sees,
        at=torch.tensor(at),
        predicted=torch.tensor(predicted),
        answer=np.array(answer_of),
    )


def _score_tree(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    looked: Sequence[Sequence[int]],
    pad: int,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    from transformers import DynamicCache

    device = model.device
    grow = functools.lru_cache(maxsize=64)(functools.partial(_grow, answers))
    sizes = [len(grow(tuple(which)).tokens) for which in looked]
    # At least one token of each prompt stays outside the prefix: the root predicts from it.
    common = _common_prefix(prompts, keep=1)
    prefix, ahead, model = virtual_cache(model), virtual_tokens(model), unwrap(model)
    if common:
        prefix = prefix if prefix is not None else DynamicCache(config=model.config)
        ids = torch.tensor([prompts[0][:common]], device=device)
        model(input_ids=ids, use_cache=True, **{cache_name(model): prefix}, **_last_only(model))
    shared = ahead + common  # tokens in the cache
    result = np.full((len(prompts), len(answers)), -np.inf)
    lengths = [len(prompt) - common + size for prompt, size in zip(prompts, sizes, strict=True)]
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    done = 0
    for group in token_groups(order, lengths, PROMPT_TOKENS):
        tails = [list(prompts[i][common:]) for i in group]
        trees = [grow(tuple(looked[i])) for i in group]
        width = max(map(len, tails))
        length = width + max(sizes[i] for i in group)
        ids = torch.full((len(group), length), pad, dtype=torch.int64)
        positions = torch.zeros((len(group), length), dtype=torch.int64)
        # [rows, new tokens, all tokens]: the prefix, then this pass's own tokens.
        mask = torch.zeros((len(group), length, shared + length), dtype=torch.bool)
        mask[:, :, :shared] = True
        # A padding token must see something, or its softmax has no finite entry.
        mask[:, :, shared] = True
        for row, (tail, tree) in enumerate(zip(tails, trees, strict=True)):
            n, end = len(tail), width + len(tree.tokens)
            ids[row, :n] = torch.tensor(tail)
            positions[row, :n] = torch.arange(shared, shared + n)
            mask[row, :n, shared : shared + n] = torch.ones(n, n, dtype=torch.bool).tril()
            ids[row, width:end] = tree.tokens
            positions[row, width:end] = shared + n - 1 + tree.depth
            mask[row, width:end, shared : shared + n] = True
            mask[row, width:end, shared + width : shared + end] = tree.sees
        additive = torch.zeros(mask.shape, dtype=model.dtype, device=device)
        additive.masked_fill_(~mask.to(device), torch.finfo(model.dtype).min)
        cache = expanded(prefix, len(group), model.config) if prefix is not None else None
        picked = torch.tensor(
            [[len(tail) - 1, *range(width, length)] for tail in tails], device=device
        )  # [rows, 1 + nodes]
        logits = _logits_at(
            model,
            picked,
            input_ids=ids.to(device),
            attention_mask=additive[:, None],
            position_ids=positions.to(device),
            use_cache=cache is not None,
            **({cache_name(model): cache} if cache is not None else {}),
        )
        for row, (i, tree) in enumerate(zip(group, trees, strict=True)):
            at, nodes = tree.at.to(device), 1 + len(tree.tokens)
            steps = logits[row, at, tree.predicted.to(device)].float()
            steps -= _logsumexp(logits[row, :nodes])[at]
            sums = np.bincount(tree.answer, steps.double().cpu().numpy(), len(answers))
            result[i, looked[i]] = sums[looked[i]]
        done += len(group)
        if progress:
            progress(done, len(prompts))
    return result


def _score_pairs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    looked: Sequence[Sequence[int]],
    pad: int,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Every prompt with every answer, padded on the right: what the tree must equal."""
    device = model.device
    result = np.full((len(prompts), len(answers)), -np.inf)
    pairs = [(i, j) for i, which in enumerate(looked) for j in which]
    lengths = [len(prompts[i]) + len(answers[j]) - 1 for i, j in pairs]
    order = sorted(range(len(pairs)), key=lambda k: lengths[k])
    done = 0
    for group in token_groups(order, lengths, PROMPT_TOKENS):
        width = max(lengths[k] for k in group)
        deepest = max(len(answers[pairs[k][1]]) for k in group)
        ids = torch.full((len(group), width), pad, dtype=torch.int64)
        mask = torch.zeros((len(group), width), dtype=torch.int64)
        picked = torch.zeros((len(group), deepest), dtype=torch.int64)
        for row, k in enumerate(group):
            prompt, answer = prompts[pairs[k][0]], answers[pairs[k][1]]
            tokens = [*prompt, *answer[:-1]]
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
            picked[row, : len(answer)] = torch.arange(len(prompt) - 1, len(tokens))
        logits = _logits_at(
            model,
            picked.to(device),
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            use_cache=False,
        )
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        for row, k in enumerate(group):
            tokens_of_answer = torch.tensor(answers[pairs[k][1]], device=device)
            at = torch.arange(len(tokens_of_answer), device=device)
            result[pairs[k]] = float(log_probs[row, at, tokens_of_answer].double().sum())
        done += len(group)
        if progress:
            progress(done * len(prompts) // len(pairs), len(prompts))
    return result


def _logits_at(model: Any, positions: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Logits ``[rows, picked, vocabulary]`` at `positions` ``[rows, picked]`` only.

    The output head, the widest matrix of a small model, sees no other hidden state.
    """

    def select(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = args[0]
        rows = torch.arange(len(hidden), device=hidden.device)[:, None]
        return (hidden[rows, positions],)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        return model(**inputs).logits
    finally:
        handle.remove()


def _logsumexp(logits: torch.Tensor) -> torch.Tensor:
    """Over the vocabulary, ``[nodes, vocabulary]`` of any dtype → ``[nodes]`` float32.

    A few nodes at a time: the float32 copies of all would leave the processor's cache.
    """
    return torch.cat([some.float().logsumexp(dim=-1) for some in logits.split(NODES)])


def _last_only(model: Any) -> dict[str, int]:
    parameters = inspect.signature(unwrap(model).forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}


def expanded(prefix: Any, rows: int, config: Any) -> Any:
    """The prefix's cache for `rows` rows: a copy, since a forward pass appends in place."""
    from transformers import DynamicCache

    cache = DynamicCache(config=config)
    for index, layer in enumerate(prefix.layers):
        cache.update(
            layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index
        )
    return cache


def _common_prefix(prompts: Sequence[Sequence[int]], keep: int) -> int:
    limit = min(map(len, prompts)) - keep
    first = prompts[0]
    for at in range(limit):
        if any(prompt[at] != first[at] for prompt in prompts):
            return at
    return max(0, limit)


def token_groups(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    groups: list[list[int]] = []
    for index in order:
        if groups and (len(groups[-1]) + 1) * lengths[index] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def unwrap(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, whose forward takes anything."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
