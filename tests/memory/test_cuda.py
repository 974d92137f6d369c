"""The constants against published readings of real devices."""

from __future__ import annotations

import pytest

from fitune.memory.allocator import Event, replay
from fitune.memory.cuda import (
    MIB,
    MULTIPROCESSORS,
    NCCL_CONNECTION_BYTES,
    UNCERTAINTY,
    Capability,
    communicator_bytes,
    context_bytes,
    outside_allocator,
    workspace_bytes,
    workspace_sizes,
)


@pytest.mark.parametrize(
    ("capability", "multiprocessors", "mib"),
    [((8, 9), 34, 107), ((12, 0), 188, 555), ((8, 9), 142, 426), ((8, 6), 82, 256)],
    ids=["RTX 4060 Ti", "RTX PRO 6000 Blackwell", "RTX 6000 Ada", "RTX 3090"],
)
def test_context_as_read(capability: Capability, multiprocessors: int, mib: int) -> None:
    size = context_bytes(capability, multiprocessors=multiprocessors)
    assert size == pytest.approx(mib * MIB, rel=UNCERTAINTY["context"] / 2)


def test_context_of_an_unnamed_device_is_the_largest_of_its_architecture() -> None:
    assert context_bytes((8, 9)) == context_bytes((8, 9), multiprocessors=142)
    assert context_bytes((8, 9)) > context_bytes((8, 9), multiprocessors=128)


@pytest.mark.parametrize(
    ("unknown", "as_if"),
    [((6, 1), (7, 0)), ((9, 9), (9, 0)), ((12, 1), (12, 0)), ((99, 0), (12, 0))],
)
def test_unknown_architectures_count_as_the_next_older(
    unknown: Capability, as_if: Capability
) -> None:
    assert context_bytes(unknown) == context_bytes(as_if)


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9)])
def test_workspace_before_hopper(capability: Capability) -> None:
    # The block that discuss.pytorch.org/t/178671 and pytorch/pytorch issue 95668 ask about.
    assert workspace_sizes(capability, training=False) == [8_519_680]
    assert workspace_bytes(capability) == 2 * 8_519_680


@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (12, 0)])
def test_workspace_since_hopper(capability: Capability) -> None:
    assert workspace_sizes(capability, training=False) == [32 * MIB]
    assert workspace_bytes(capability) == 64 * MIB


def test_two_workspaces_share_one_segment_before_hopper() -> None:
    events = [Event(i, size, True) for i, size in enumerate(workspace_sizes((8, 0)))]
    assert replay(events).reserved == 20 * MIB


def test_nccl() -> None:
    # github.com/tonyd2wild/DeepSeek-V4.1-Flash-vLLM-DGX-Spark, issue 8: mmap of each connection.
    assert NCCL_CONNECTION_BYTES == 9_641_984
    assert communicator_bytes(1) == 0
    assert communicator_bytes(2, nvlink=False) < communicator_bytes(2) == communicator_bytes(8)
    # NVIDIA/nccl issue 864: 1.6 GB.
    assert communicator_bytes(8) * (1 + UNCERTAINTY["communicators"]) > 1.6e9


def test_outside_allocator() -> None:
    alone = outside_allocator((9, 0))
    assert set(alone) == {"context", "kernels"}
    among = outside_allocator((9, 0), devices=8)
    assert among["communicators"] == communicator_bytes(8)
    assert outside_allocator((8, 9), multiprocessors=58)["context"] < alone["context"]


def test_every_named_architecture_is_plausible() -> None:
    for capability in MULTIPROCESSORS:
        assert 50 * MIB < context_bytes(capability) < 600 * MIB
