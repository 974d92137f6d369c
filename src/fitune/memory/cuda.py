"""What a CUDA process needs beside its tensors: context, kernels, workspaces, communicators.

Knows named constants with their sources; knows nothing of models or of a running device. None of
them was measured by fitune: they are other people's figures and public source, and `UNCERTAINTY`
says how far the truth may lie from them.

Two kinds: what the caching allocator hands out (`workspace_sizes`: they belong at the beginning of
a replay) and what it knows nothing of (`outside_allocator`: to be added to the reserved bytes, and
what ``nvidia-smi`` shows beyond ``torch.cuda.memory_reserved``).
"""

from __future__ import annotations

MIB = 1 << 20

Capability = tuple[int, int]
"""CUDA compute capability, ``(8, 0)`` for an A100."""

CONTEXT_BASE_BYTES = 8 * MIB
CONTEXT_BYTES_PER_MULTIPROCESSOR = 29 * MIB // 10
"""A context grows with the number of multiprocessors, for each of which the driver sets aside
stacks and local memory. The line through published readings of a fresh context, MiB: RTX 4060 Ti
(34 multiprocessors) 107 and RTX PRO 6000 Blackwell (188) 555 (github.com/ggml-org/llama.cpp,
pull request 23604), RTX 6000 Ada (142) 426 (unslothai/unsloth-zoo, pull request 1053, torch 2.10),
RTX 3090 (82) 256 (invoke-ai/InvokeAI, issue 9413, torch 2.7): within 4 % of each."""

MULTIPROCESSORS: dict[Capability, int] = {
    (7, 0): 80,  # V100
    (7, 5): 72,  # Quadro RTX 8000; T4 40
    (8, 0): 108,  # A100
    (8, 6): 84,  # RTX A6000; RTX 3090 82, A10 72
    (8, 7): 16,  # Jetson AGX Orin
    (8, 9): 142,  # L40S, RTX 6000 Ada; RTX 4090 128, L4 58
    (9, 0): 132,  # H100 SXM, H200
    (10, 0): 148,  # B200
    (10, 3): 160,  # B300
    (12, 0): 188,  # RTX PRO 6000 Blackwell; RTX 5090 170
}
"""Of the largest product of an architecture (NVIDIA's architecture white papers): an upper bound
where the product is not known."""

KERNEL_BYTES = 160 * MIB
"""Code of the kernels that a step loads into the context as it first uses them (cuBLAS, attention,
torch's own): 0.16 GiB beyond the context on an H100 (vllm-project/vllm, pull request 12126).
Without lazy loading (``CUDA_MODULE_LOADING=EAGER``) it is some 400 MiB more
(pytorch/pytorch, pull request 86509)."""

WORKSPACE_BYTES = 2 * 4096 * 1024 + 8 * 16 * 1024
WORKSPACE_BYTES_SINCE_HOPPER = 8 * 4096 * 1024
"""cuBLAS's workspace as torch 2.13 allocates it for each handle and stream, and shares it with
cublasLt: ``CUBLAS_WORKSPACE_CONFIG`` defaults to ``:4096:2:16:8``, from capability 9.0 on to 32 MiB
(``aten/src/ATen/cuda/CublasHandlePool.cpp``; on Blackwell since pull request 175344, before it the
smaller one)."""

NCCL_CONNECTION_BYTES = 4096 * 1024 + 640 * 120 * 8 * 8 + 512 * 8 * 16 * 8 + 8 * 1024
"""Buffers of one NCCL connection: protocols Simple (``NCCL_BUFFSIZE``, 4 MiB), LL128, LL, and heads
(``src/include/device.h``); together the 9,641,984 bytes seen for each."""

NCCL_CONNECTIONS_PER_CHANNEL = 3
"""One of the ring, two of the tree."""

NCCL_CHANNELS_NVLINK = 24
NCCL_CHANNELS_PCIE = 4
"""Channels NCCL opens between devices on NVLink switches (as its log says on A100 and H100
machines, ``24 coll channels``) and on PCIe (2 to 4)."""

UNCERTAINTY = {
    "live": 0.03,
    "allocated": 0.04,
    "reserved": 0.10,
    "context": 0.10,
    "kernels": 0.75,
    "workspace": 0.50,
    "communicators": 1.50,
}
"""Relative, either way, until measured on a GPU. *live*: CUDA's kernels save and allocate other
temporary tensors than the CPU's. *allocated*: the same, rounded. *reserved*: addresses and streams
(see `fitune.memory.allocator`). *context*: from the four readings above, other drivers and torch
releases read otherwise. *kernels*: depends on the model's operations. *workspace*: handles of
further threads and streams. *communicators*: topology, NVLS and peer-to-peer channels; one
communicator was seen to take 1.6 GB (NVIDIA/nccl, issue 864)."""


def context_bytes(capability: Capability, *, multiprocessors: int | None = None) -> int:
    """Bytes of an empty CUDA context.

    Args:
        multiprocessors: of the device (`torch.cuda.get_device_properties`); None: the most that
            its architecture has, or that of the next older known one.
    """
    if multiprocessors is None:
        older = [known for known in MULTIPROCESSORS if known <= capability]
        multiprocessors = MULTIPROCESSORS[max(older, default=min(MULTIPROCESSORS))]
    return CONTEXT_BASE_BYTES + multiprocessors * CONTEXT_BYTES_PER_MULTIPROCESSOR


def workspace_sizes(capability: Capability, *, training: bool = True) -> list[int]:
    """Bytes of each cuBLAS workspace, which is never freed: allocations of the caching allocator.

    Handles belong to threads. Inference has one; training two, for torch runs the backward pass
    in a thread of its own for each device.
    """
    size = WORKSPACE_BYTES_SINCE_HOPPER if capability >= (9, 0) else WORKSPACE_BYTES
    return [size] * (2 if training else 1)


def workspace_bytes(capability: Capability, *, training: bool = True) -> int:
    """Bytes of all cuBLAS workspaces together (see `workspace_sizes`)."""
    return sum(workspace_sizes(capability, training=training))


def communicator_bytes(devices: int, *, nvlink: bool = True) -> int:
    """Bytes of NCCL's buffers for one communicator on each device; 0 for one device.

    FSDP2 and DDP use one communicator.
    """
    if devices < 2:
        return 0
    channels = NCCL_CHANNELS_NVLINK if nvlink else NCCL_CHANNELS_PCIE
    return channels * NCCL_CONNECTIONS_PER_CHANNEL * NCCL_CONNECTION_BYTES


def outside_allocator(
    capability: Capability,
    *,
    multiprocessors: int | None = None,
    devices: int = 1,
    nvlink: bool = True,
) -> dict[str, int]:
    """Bytes by name that a process takes from the device beyond what the allocator reserves."""
    terms = {
        "context": context_bytes(capability, multiprocessors=multiprocessors),
        "kernels": KERNEL_BYTES,
        "communicators": communicator_bytes(devices, nvlink=nvlink),
    }
    return {name: size for name, size in terms.items() if size}
