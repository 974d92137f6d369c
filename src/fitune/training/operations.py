"""Where the time of a step goes by kind of operation, as torch's profiler saw it.

Knows the names of torch's operations; knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MATRIX, ATTENTION, ELEMENTWISE = "matrix products", "attention", "norms and elementwise"
COPIES, OPTIMIZER, OVERHEAD = "copies and casts", "optimizer", "Python and overhead"
KINDS = (MATRIX, ATTENTION, ELEMENTWISE, COPIES, OPTIMIZER, OVERHEAD)

_MATRIX = {
    *("mm", "addmm", "addmm_", "linear", "matmul", "addmv", "mv", "_grouped_mm", "_scaled_mm"),
    *("mkldnn_linear", "einsum", "linear_backward", "_addmm_activation"),
}
_ATTENTION = {"bmm", "baddbmm", "baddbmm_", "softmax", "_softmax", "_softmax_backward_data"}
"""Outside of attention, no family trains with products of batches of matrices."""

_COPIES = {
    *("copy_", "_to_copy", "to", "clone", "contiguous", "cat", "stack", "index_select", "index"),
    *("gather", "embedding", "index_copy_", "index_copy", "index_put_", "_index_put_impl_"),
    *("index_add_", "embedding_dense_backward", "fill_", "zero_", "zeros", "new_zeros", "ones"),
    *("repeat", "repeat_interleave", "flip", "scatter_", "constant_pad_nd", "zeros_like"),
}
_VIEWS = {
    *("view", "reshape", "_unsafe_view", "transpose", "t", "permute", "expand", "as_strided"),
    *("select", "slice", "narrow", "split", "chunk", "squeeze", "unsqueeze", "flatten", "unbind"),
    *("detach", "detach_", "alias", "empty", "empty_like", "empty_strided", "new_empty", "item"),
    *("_local_scalar_dense", "resize_", "resolve_conj", "resolve_neg", "_reshape_alias", "unfold"),
    *("view_as", "expand_as", "lift_fresh", "is_nonzero"),
}


def shares(events: Iterable[Any], seconds: float, *, cuda: bool = False) -> dict[str, float]:
    """Kind → share of the time; they sum to one.

    Args:
        events: of `torch.profiler`.
        seconds: that the work took. What no operation accounts for is overhead; on CUDA, so is
            the time that the device waited.
        cuda: whether the device's time counts, instead of the processor's.
    """
    found = dict.fromkeys(KINDS, 0.0)
    for event in events:
        if cuda and str(event.device_type).endswith("CUDA"):
            continue  # kernels stand once more under the operation that launched them
        taken = event.self_device_time_total if cuda else event.self_cpu_time_total
        found[_kind(event)] += taken / 1e6
    rest = seconds - sum(found.values())
    found[OVERHEAD] += max(0.0, rest)
    total = sum(found.values()) or 1.0
    return {kind: taken / total for kind, taken in found.items()}


def _kind(event: Any) -> str:
    within = [event.name]
    above = event.cpu_parent
    while above is not None:
        within.append(above.name)
        above = above.cpu_parent
    if any(name.startswith("Optimizer.") for name in within):
        return OPTIMIZER
    if any(name.startswith("_Attend") or "scaled_dot_product" in name for name in within):
        return ATTENTION
    return _kind_alone(event.name)


def _kind_alone(name: str) -> str:
    library, _, operation = name.rpartition("::")
    if not library or library == "autograd::engine":
        return OVERHEAD  # a node of the graph, or the call of a function of ours
    if operation in _VIEWS:
        return OVERHEAD
    if operation in _MATRIX or "gemm" in operation or "gemv" in operation:
        return MATRIX
    if operation in _ATTENTION or "attention" in operation:
        return ATTENTION
    return COPIES if operation in _COPIES else ELEMENTWISE
