"""What a piece of work really took, by the CPU allocator's own account.

Knows torch's profiler; knows nothing of models or estimates.
"""

from __future__ import annotations

from collections.abc import Callable


def allocator_peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` held above those held before it began.

    The CPU allocator reports every allocation and release to the profiler, to the byte: what a
    library takes elsewhere (a matrix kernel's scratch space) is not in it.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    results = profiler.profiler.kineto_results
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    )
    held = peak = 0
    for _, change in events:
        held += change
        peak = max(peak, held)
    return peak
