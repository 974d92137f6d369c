"""What tests of four-bit layers share: a chain of linear layers, and the allocator's account."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn

from fitune.collector import uncollected


def memory_events(work: Callable[[], object]) -> list[int]:
    """Bytes taken (or, negative, given back), in order."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # what an earlier test left in cycles is not given back meanwhile
    with uncollected(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    found = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return [size for _, size in sorted(found, key=lambda pair: pair[0])]


class Chain(nn.Module):
    """A chain of linear layers, as much of a transformers model as quantization looks at."""

    def __init__(self, sizes: Sequence[int], dtype: torch.dtype, *, bias: bool) -> None:
        super().__init__()
        pairs = itertools.pairwise(sizes)
        self.layers = nn.Sequential(*(nn.Linear(i, o, bias=bias, dtype=dtype) for i, o in pairs))
        self.embeddings = nn.Embedding(8, sizes[0], dtype=dtype)
        self.requires_grad_(False)

    @property
    def base_model(self) -> nn.Module:
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def get_output_embeddings(self) -> None:
        return None
