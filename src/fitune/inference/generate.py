"""Greedy answers from a decoder, stopped where the template or the caller says an answer ends.

Knows decoders and token ids; knows nothing of rows, templates, texts or grammars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from fitune.inference.score import expanded, token_groups, unwrap
from fitune.models.quiet import quiet
from fitune.models.virtual_tokens import cache_name, virtual_cache, virtual_tokens

BATCH_TOKENS = 4096
"""Most tokens (prompt and room for the answer, padding included) generated side by side."""


LogitsProcessor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(tokens so far ``[rows, tokens]``, logits of the next ``[rows, vocabulary]``) → the logits to
choose from, as transformers calls it."""


@dataclass(frozen=True)
class Generated:
    """One generated answer.

    Attributes:
        tokens: without the stop token.
        stopped: whether it ended by itself; False when it ran into the limit.
    """

    tokens: tuple[int, ...]
    stopped: bool


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_tokens: Sequence[int],
    max_new_tokens: int,
    pad: int,
    progress: Callable[[int, int], None] | None = None,
    ends: Callable[[Sequence[int]], bool] | None = None,
    constrain: Callable[[int], LogitsProcessor] | None = None,
) -> list[Generated]:
    """The most likely next token, again and again, until a stop token or the limit.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompts: token ids; each at least one token.
        ends: asked after each token, with an answer's tokens so far: whether it ends here too. The
            tokens up to here are its answer.
        constrain: what bends the logits of prompts that are answered together, made anew for each
            such group, given how many tokens stand before their answers.

    Returns:
        one answer a prompt, in order.
    """
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_tokens),
        pad_token_id=pad,
    )
    stops = set(stop_tokens)
    result: list[Generated | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    done = 0
    with torch.inference_mode():
        virtual, ahead = virtual_cache(model), virtual_tokens(model)
        answering = model if virtual is None else unwrap(model)
        for group in token_groups(order, [len(p) + max_new_tokens for p in prompts], BATCH_TOKENS):
            width = max(len(prompts[i]) for i in group)
            ids = torch.full((len(group), width), pad, dtype=torch.int64)
            mask = torch.zeros((len(group), width), dtype=torch.int64)
            for row, i in enumerate(group):  # on the left: the answer follows the last token
                ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                mask[row, width - len(prompts[i]) :] = 1
            given: dict[str, Any] = {}
            if virtual is not None:  # transformers leaves out as many tokens as the cache holds
                ids = torch.nn.functional.pad(ids, (ahead, 0), value=pad)
                mask = torch.nn.functional.pad(mask, (ahead, 0), value=1)
                cache = expanded(virtual, len(group), answering.config)
                given = {cache_name(answering): cache}
            start = ahead + width
            ended = _Ended(ends, start) if ends else None
            if ended:
                given["stopping_criteria"] = StoppingCriteriaList([ended])
            if constrain:
                given["logits_processor"] = LogitsProcessorList([constrain(start)])
            with quiet(), _plain(model):
                output = answering.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=mask.to(model.device),
                    generation_config=config,
                    **given,
                )
            for row, i in enumerate(group):
                new = output[row, start:].tolist()
                end = next((at for at, token in enumerate(new) if token in stops), None)
                if ended and row in ended.at:
                    end = min(ended.at[row], len(new) if end is None else end)
                result[i] = Generated(tuple(new[:end]), end is not None)
            done += len(group)
            if progress:
                progress(done, len(prompts))
    return [item for item in result if item is not None]


class _Ended:
    """A stopping criterion of transformers: which rows of a group have ended, and where.

    Attributes:
        at: row → how many tokens its answer has.
    """

    def __init__(self, ends: Callable[[Sequence[int]], bool], start: int) -> None:
        self._ends, self._start = ends, start
        self.at: dict[int, int] = {}

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, tokens in enumerate(ids[:, self._start :].tolist()):
            if row not in self.at and self._ends(tokens):
                self.at[row] = len(tokens)
        done = [row in self.at for row in range(len(ids))]
        return torch.tensor(done, dtype=torch.bool, device=ids.device)


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """Inside the block, the model's own generation settings do not apply.

    transformers fills in what a caller leaves open from them: a repetition penalty, say, with which
    an answer is no longer the most likely tokens.
    """
    from transformers import GenerationConfig

    inner = unwrap(model)
    kept = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = kept
