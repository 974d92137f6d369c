"""Dividing a model: against the ZeRO paper's table, and against torch dividing a real one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.errors import ConfigError
from fitune.memory.sharding import (
    BUFFERS,
    GATHERED,
    GRADIENTS,
    STATES,
    TEMPORARY,
    UNREDUCED,
    WEIGHTS,
    ParameterFacts,
    Sharded,
    Sharding,
    shard,
)

GB = 10**9
LIBRARY_STRATEGIES = [
    ("torch", "ddp"),
    ("torch", "fsdp"),
    ("torch", "zero1"),
    ("torch", "zero2"),
    ("torch", "zero3"),
    ("deepspeed", "zero1"),
    ("deepspeed", "zero2"),
    ("deepspeed", "zero3"),
]


def made(
    numel: int, *, layers: int = 4, bytes_per_value: float = 2, trained: bool = True
) -> list[ParameterFacts]:
    """A model of equal layers and nothing else."""
    return [
        ParameterFacts(f"layers.{i}", numel // layers, bytes_per_value, trained, f"layers.{i}")
        for i in range(layers)
    ]


# Rajbhandari et al., arXiv:1910.02054, table 1: GB a device of models of 7.5, 128 and 1000 billion
# parameters in mixed precision with Adam (2 + 2 + 12 bytes a parameter); figure 1 rounds the row of
# 64 devices and 7.5 billion to 31.4, 16.6 and 1.9.
ZERO_TABLE = {
    4: [(52.5, 41.3, 30), (896, 704, 512), (7000, 5500, 4000)],
    16: [(35.6, 21.6, 7.5), (608, 368, 128), (4750, 2875, 1000)],
    64: [(31.4, 16.6, 1.88), (536, 284, 32), (4187, 2218, 250)],
    256: [(30.4, 15.4, 0.47), (518, 263, 8), (4046, 2054, 62.5)],
    1024: [(30.1, 15.1, 0.12), (513, 257, 2), (4011, 2013, 15.6)],
}


@pytest.mark.parametrize("devices", ZERO_TABLE)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_paper_s_table(devices: int, stage: int) -> None:
    strategy: Any = f"zero{stage}"
    for billions, row in zip((7.5, 128, 1000), ZERO_TABLE[devices], strict=True):
        model = made(int(billions * GB))
        divided = shard(model, Sharding(devices, strategy, "deepspeed"), optimizer_bytes=12)
        printed = row[stage - 1]
        # Printed to two or three digits, some of them cut off.
        assert divided.resident / GB == pytest.approx(printed, abs=max(0.0051, printed * 0.005))
    if stage == 3:  # FSDP2 keeps as much between steps
        fsdp = shard(model, Sharding(devices, "fsdp"), optimizer_bytes=12)
        assert fsdp.resident == pytest.approx(divided.resident, rel=1e-6)


def test_without_division_it_is_120_gb() -> None:
    assert shard(made(75 * 10**8), Sharding(1), optimizer_bytes=12).terms == {
        WEIGHTS: 15 * GB,
        GRADIENTS: 15 * GB,
        STATES: 90 * GB,
    }


# Torch dividing a real model, in two processes; then, on one of them, with made-up process groups
# of any size, whose collectives move nothing, so that a step's memory can be tracked.
WORKER = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

torch.set_num_threads(1)
VOCABULARY, WIDTH = 1001, 63

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH + 1), nn.Linear(4 * WIDTH + 1, WIDTH)
    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))

class Model(nn.Module):
    def __init__(self, layers, tied=False, frozen=False):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.head = nn.Linear(WIDTH, VOCABULARY if tied else 2 * VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        if frozen:
            for layer in self.layers:
                layer.up.requires_grad_(False)
    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)

def facts(model, tied=False):
    return [
        dict(name=name, numel=p.numel(), bytes_per_value=p.element_size(), shape=list(p.shape),
             trained=p.requires_grad, tied=tied and name == "embedding.weight",
             unit=".".join(name.split(".")[:2]) if name.startswith("layers.") else "")
        for name, p in model.named_parameters()
    ]

def stepped(model, optimizer):
    tokens = torch.zeros(1, 2, dtype=torch.long)
    optimizer.zero_grad()
    model(tokens).float().sum().backward()
    optimizer.step()

def local(tensor):
    return getattr(tensor, "_local_tensor", tensor)

def states_of(optimizer):
    return sum(local(v).nbytes for s in optimizer.state.values() for v in s.values() if v.ndim)

def ddp():
    model = Model(2)
    found = dict(parameters=facts(model))
    wrapped = nn.parallel.DistributedDataParallel(model)
    stepped(wrapped, torch.optim.AdamW(model.parameters()))
    sizes = wrapped._get_ddp_logging_data()["bucket_sizes"]
    found["buckets"] = sum(int(size) for size in str(sizes).split(","))
    found["weights"] = sum(p.nbytes for p in model.parameters())
    found["gradients"] = sum(p.grad.nbytes for p in model.parameters())
    return found

def dealt():
    from torch.distributed.optim import ZeroRedundancyOptimizer
    model = Model(2)
    found = dict(parameters=facts(model))
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3)
    stepped(nn.parallel.DistributedDataParallel(model), optimizer)
    found["states"] = states_of(optimizer.optim)
    return found

def sharded(world, layers, tied=False, frozen=False, precision=None, **options):
    model = Model(layers, tied, frozen)
    found = dict(parameters=facts(model, tied))
    options["mesh"] = init_device_mesh("cpu", (world,))
    if precision:
        options["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    for layer in model.layers:
        fully_shard(layer, **options)
    return fully_shard(model, **options), found

def fsdp():
    model, found = sharded(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    stepped(model, optimizer)
    found["weights"] = sum(
        local(p).untyped_storage().nbytes() for p in model.parameters()
    )
    gradients = {local(p.grad).untyped_storage() for p in model.parameters()}
    found["gradients"] = sum(storage.nbytes() for storage in gradients)
    found["states"] = states_of(optimizer)
    return found

def tracked(world, layers, **options):
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.testing._internal.distributed.fake_pg import FakeStore
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    model, found = sharded(world, layers, **options)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    tracker = FSDPMemTracker(model, optimizer)
    with tracker:
        stepped(model, optimizer)
    tracker.reset_mod_stats()
    with tracker:
        stepped(model, optimizer)
    snapshots = [
        snapshot
        for stats in tracker.memory_tracking.values()
        for states in stats.snapshots.values()
        for snapshot in states
    ]
    snapshots = [
        {getattr(kind, "value", kind): size for kind, size in of_device.items()}
        for snapshot in [tracker.get_tracker_snapshot("peak"), *snapshots]
        for of_device in snapshot.values()
    ]
    extra = ("Unsharded Param", "All Gather", "Reduce Scatter", "Unsharded Grad", "Temp")
    found["extra"] = max(sum(snapshot[kind] for kind in extra) for snapshot in snapshots)
    found["weights"] = snapshots[0]["Sharded Param"]
    found["states"] = snapshots[0]["OptState"]
    dist.destroy_process_group()
    return found

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
found = dict(ddp=ddp(), dealt=dealt(), fsdp=fsdp())
dist.barrier()
dist.destroy_process_group()
if rank == 0:
    for name, options in json.loads(sys.argv[3]).items():
        found[name] = tracked(**options)
print(json.dumps(found), flush=True)
os._exit(0)  # gloo's threads may outlive the group
"""

TRACKED: dict[str, dict[str, Any]] = {
    "4 devices": {"world": 4, "layers": 4},
    "3 devices, tied": {"world": 3, "layers": 3, "tied": True},
    "8 devices, bf16": {"world": 8, "layers": 5, "precision": "bf16"},
    "2 devices, half frozen": {"world": 2, "layers": 4, "frozen": True},
    "4 devices, kept": {"world": 4, "layers": 4, "reshard_after_forward": False},
    "4 devices, no layers": {"world": 4, "layers": 0},
}


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "worker.py"
    script.write_text(WORKER)
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder / "store"), json.dumps(TRACKED)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [rank.communicate(timeout=120) for rank in ranks]
    for rank, (_, errors) in zip(ranks, printed, strict=True):
        assert rank.returncode == 0, errors
    return [json.loads(output.splitlines()[-1]) for output, _ in printed]


def facts(found: dict[str, Any]) -> list[ParameterFacts]:
    return [
        ParameterFacts(**{**fact, "shape": tuple(fact["shape"])}) for fact in found["parameters"]
    ]


def test_ddp_as_torch_does_it(truth: list[dict[str, Any]]) -> None:
    found = truth[0]["ddp"]
    terms = shard(facts(found), Sharding(2, "ddp"), optimizer_bytes=8).terms
    assert terms[WEIGHTS] == found["weights"]
    assert terms[GRADIENTS] == found["gradients"]
    assert terms[BUFFERS] == found["buckets"]


def test_zero_redundancy_optimizer_as_torch_does_it(truth: list[dict[str, Any]]) -> None:
    most = max(rank["dealt"]["states"] for rank in truth)
    parameters = facts(truth[0]["dealt"])
    assert shard(parameters, Sharding(2, "zero1"), optimizer_bytes=8).terms[STATES] == most


def test_whole_parameters_are_dealt_out_the_largest_first() -> None:
    model = [ParameterFacts(str(numel), numel, 4, True) for numel in (8, 10, 9)]
    assert divided_by(model, "torch", "zero1", 2).terms[STATES] == (9 + 8) * 8
    assert divided_by(model, "torch", "zero1", 5).terms[STATES] == 10 * 8


def test_fsdp_as_torch_does_it(truth: list[dict[str, Any]]) -> None:
    found = truth[0]["fsdp"]
    terms = shard(facts(found), Sharding(2, "fsdp"), optimizer_bytes=8).terms
    assert terms[WEIGHTS] == found["weights"]
    assert terms[GRADIENTS] == found["gradients"]
    assert terms[STATES] == found["states"]
    assert truth[1]["fsdp"]["states"] < found["states"]  # the first rank has most


@pytest.mark.parametrize("name", TRACKED)
def test_fsdp_s_temporary_memory_as_torch_tracks_it(truth: list[dict[str, Any]], name: str) -> None:
    options, found = TRACKED[name], truth[0][name]
    sharding = Sharding(
        options["world"],
        "zero2" if "reshard_after_forward" in options else "fsdp",
        gather_bytes=2 if "precision" in options else None,
        reduce_bytes=4 if "precision" in options else None,
    )
    divided = shard(facts(found), sharding, optimizer_bytes=8)
    assert divided.terms[WEIGHTS] == pytest.approx(found["weights"], rel=0.01)
    assert divided.terms[STATES] == pytest.approx(found["states"], rel=0.001)
    # The tracker's figure holds a few temporary tensors of two tokens.
    assert divided.peak_extra == pytest.approx(found["extra"], rel=0.01)


# What must hold of any model.

PARAMETERS = st.lists(
    st.builds(
        lambda index, rows, columns, size, trained: ParameterFacts(
            f"p{index}",
            rows * columns,
            size,
            trained,
            f"layers.{index}" if index else "",
            (rows, columns),
        ),
        st.integers(0, 3),
        st.integers(1, 300),
        st.integers(1, 50),
        st.sampled_from([0.5, 2.0, 4.0]),
        st.booleans(),
    ),
    max_size=8,
)


def divided_by(
    parameters: list[ParameterFacts], library: str, strategy: str, devices: int, **options: Any
) -> Sharded:
    sharding = Sharding(devices, strategy, library, **options)  # type: ignore[arg-type]
    return shard(parameters, sharding, optimizer_bytes=8)


@given(PARAMETERS, st.sampled_from(LIBRARY_STRATEGIES), st.integers(2, 9))
def test_nothing_gets_lost(
    parameters: list[ParameterFacts], way: tuple[str, str], devices: int
) -> None:
    alone = divided_by(parameters, *way, 1)
    assert alone.peak_extra == 0
    divided = divided_by(parameters, *way, devices)
    for name in (WEIGHTS, GRADIENTS, STATES):
        assert divided.terms[name] * devices >= alone.terms[name]
        rows = sum(p.numel // p.shape[0] for p in parameters) * 8 + devices
        assert divided.terms[name] <= alone.terms[name] + rows
    assert divided.resident + divided.peak_extra == sum(divided.terms.values())
    assert all(isinstance(size, int) and size >= 0 for size in divided.terms.values())


@given(PARAMETERS, st.integers(2, 9))
def test_each_stage_keeps_less(parameters: list[ParameterFacts], devices: int) -> None:
    for library in ("torch", "deepspeed"):
        kept = [divided_by(parameters, library, f"zero{n}", devices) for n in (1, 2, 3)]
        padding = sum(p.numel // p.shape[0] for p in parameters) * 16 + 16
        for more, less in itertools.pairwise(kept):
            assert less.resident <= more.resident + padding


@given(PARAMETERS, st.integers(2, 9))
def test_gathering_all_layers_takes_most(parameters: list[ParameterFacts], devices: int) -> None:
    whole = sum(p.part(devices) * devices * p.bytes_per_value for p in parameters)
    some = divided_by(parameters, "torch", "fsdp", devices).peak_extra
    every = divided_by(parameters, "torch", "zero2", devices).peak_extra
    # One layer's gathering buffer may be all that resharding adds.
    assert every >= whole - 1 and some <= 4 * whole + 16
    if not any(p.trained for p in parameters):
        assert divided_by(parameters, "torch", "fsdp", devices).terms[UNREDUCED] == 0


@pytest.mark.parametrize(
    ("library", "strategy", "host", "device"),
    [
        ("torch", "fsdp", {WEIGHTS, GRADIENTS, STATES}, set()),
        ("torch", "zero2", {WEIGHTS, GRADIENTS, STATES}, set()),
        ("deepspeed", "zero1", {GRADIENTS, STATES}, {WEIGHTS}),
        ("deepspeed", "zero2", {GRADIENTS, STATES}, {WEIGHTS}),
        ("deepspeed", "zero3", {WEIGHTS, GRADIENTS, STATES}, set()),
    ],
)
def test_offloading(library: str, strategy: str, host: set[str], device: set[str]) -> None:
    model = made(8 * 10**8)
    divided = divided_by(model, library, strategy, 4, offload=True)
    assert set(divided.host) == host
    assert set(divided.terms) - set(TEMPORARY) == device
    stays = divided_by(model, library, "zero2" if strategy == "zero1" else strategy, 4)
    assert divided.host == {name: stays.terms[name] for name in host}
    assert divided.peak_extra >= stays.peak_extra


def test_a_gradient_s_second_copy_in_ddp() -> None:
    model = made(10**6)
    copied = divided_by(model, "torch", "ddp", 2)
    viewed = divided_by(model, "torch", "ddp", 2, gradient_as_bucket_view=True)
    assert copied.peak_extra == copied.terms[GRADIENTS] == 2 * 10**6
    assert viewed.peak_extra == 0 and viewed.resident == copied.resident


def test_quantized_layers_are_gathered_as_they_are_stored() -> None:
    model = [
        ParameterFacts("base", 10**6, 0.5, False, "layers.0"),
        ParameterFacts("adapter", 10**4, 4.0, True, "layers.0"),
    ]
    terms = divided_by(model, "torch", "fsdp", 2, gather_bytes=2).terms
    assert terms[GATHERED] == 2 * (500_000 + 20_000)  # forward: the layer and its buffer
    assert terms[UNREDUCED] == 0
    assert terms[WEIGHTS] == 250_000 + 20_000


def test_layers_fetched_ahead() -> None:
    model = made(4 * 10**6)
    extra = [divided_by(model, "torch", "fsdp", 2, prefetch=n).peak_extra for n in range(4)]
    # A layer is 2 MB: whole, its gradients, the buffer of those before it, and those ahead.
    assert extra == [6 * 10**6, 8 * 10**6, 10 * 10**6, 10 * 10**6]


def test_frozen_layers_that_stay_gathered() -> None:
    model = made(4 * 10**6, trained=False)
    # Forward, at the last layer of 2 MB: all four, its buffer, and that of the layer before.
    assert divided_by(model, "torch", "zero2", 2).peak_extra == 12 * 10**6
    assert divided_by(model, "torch", "fsdp", 2).peak_extra == 6 * 10**6


def test_a_gradient_on_its_way_to_the_host() -> None:
    model = made(10**6, layers=1)  # 2 MB: its gradients, the buffer to reduce them, the result
    assert divided_by(model, "torch", "fsdp", 2).peak_extra == 4 * 10**6
    assert divided_by(model, "torch", "fsdp", 2, offload=True).peak_extra == 5 * 10**6


def test_deepspeed_keeps_small_parameters_whole() -> None:
    norms = [ParameterFacts(f"norm.{i}", 50_000, 2, True) for i in range(8)]
    divided = divided_by(norms, "deepspeed", "zero3", 4)
    assert divided.terms[WEIGHTS] + divided.terms[GATHERED] == 8 * 50_000 * 2


def test_deepspeed_s_buffers() -> None:
    model = made(8 * 10**9)  # in 16 bit
    one = divided_by(model, "deepspeed", "zero1", 8)
    assert one.terms[BUFFERS] == 2 * 5 * 10**8 * 2
    overlapped = divided_by(model, "deepspeed", "zero1", 8, overlap=True)
    assert overlapped.terms[BUFFERS] - one.terms[BUFFERS] == GB
    three = divided_by(model, "deepspeed", "zero3", 8)
    assert three.terms[BUFFERS] == 2 * 5 * 10**8 * 2
    assert three.terms[GATHERED] == pytest.approx((2 * 10**9 + 5 * 10**7) * 2)
    small = divided_by(made(10**6), "deepspeed", "zero2", 8)
    assert small.terms[BUFFERS] == 5 * 10**8 * 2 + 10**6 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "fsdp"), "0 devices"),
        ((2, "tp"), "no strategy 'tp' with torch; choose one of ddp, fsdp, zero1"),
        ((2, "ddp", "deepspeed"), "no strategy 'ddp' with deepspeed"),
        ((2, "fsdp", "horovod"), "choose the library torch or deepspeed"),
        ((2, "ddp", "torch", True), "cannot offload"),
        ((2, "zero1", "torch", True), "cannot offload"),
    ],
)
def test_what_cannot_be_done(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sharding(*arguments)
