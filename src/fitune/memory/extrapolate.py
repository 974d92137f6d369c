"""From a few layers to all of them.

Knows traces of several selections of layers; knows nothing of how they were made. At a given place
of the model in a given phase, each further layer of a kind adds the same bytes: its own weights,
gradients and states, and what its forward pass left behind. So bytes are linear in the number of
layers of each kind, place by place, and the peak of the whole model is the highest of the places'
values. (The highest place may be another than with few layers, which is why the peak itself is not
linear.)
"""

from __future__ import annotations

from collections.abc import Sequence

from fitune.memory.stacks import Selection
from fitune.memory.trace import Peak, Trace


def extrapolate(traces: Sequence[Trace], selections: Sequence[Selection], full: Selection) -> Trace:
    """What `traces`, made of `selections`, say of the model with all its layers.

    Args:
        traces: of the base first, then of one layer more of one kind each.

    Returns:
        a trace without allocations, unless the base is all there is.
    """
    base = traces[0]
    if len(traces) == 1:
        return base
    steps = [
        (further, _missing(selections[0], grown, full))
        for further, grown in zip(traces[1:], selections[1:], strict=True)
    ]
    common = [label for label in base.peaks if all(label in t.peaks for t, _ in steps)]
    peaks = {
        label: _sum(base.peaks[label], [(t.peaks[label], times) for t, times in steps])
        for label in common
    }
    return Trace(
        peaks=peaks,
        allocations=(),
        parameters=base.parameters + sum(n * (t.parameters - base.parameters) for t, n in steps),
        trainable=base.trainable + sum(n * (t.trainable - base.trainable) for t, n in steps),
    )


def _missing(base: Selection, grown: Selection, full: Selection) -> int:
    """How many layers of the one kind that `grown` has more of are missing in `base`."""
    (added,) = set(grown.layers) - set(base.layers)
    return full.count(added.kind) - base.count(added.kind)


def _sum(base: Peak, further: Sequence[tuple[Peak, int]]) -> Peak:
    terms: dict[str, int] = dict(base.terms)
    for peak, times in further:
        for name in {*base.terms, *peak.terms}:
            more = peak.terms.get(name, 0) - base.terms.get(name, 0)
            terms[name] = terms.get(name, 0) + times * more
    terms = {name: amount for name, amount in terms.items() if amount}
    return Peak(sum(terms.values()), terms, base.operation, base.module)
