"""The machine's figures against the operating system's own, and cgroup limits on made-up trees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from fitune import hardware
from fitune.hardware import PeakMemory, disk_free, this_machine

LINUX = sys.platform == "linux"


def test_this_machine_agrees_with_the_operating_system() -> None:
    machine = this_machine()
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert 0 < machine.memory_available <= machine.memory_total <= psutil.virtual_memory().total
    assert machine.cpu and machine.system.split()
    assert machine.to_json()["memory_total"] == machine.memory_total
    if LINUX:
        flags = Path("/proc/cpuinfo").read_text().split()
        assert machine.native_bf16 == bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def test_torch_is_loaded_only_when_asked_for() -> None:
    code = (
        "import sys; from fitune.hardware import this_machine; "
        "print(this_machine().gpus, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "False"]
    assert this_machine(load_torch=True).gpus is not None


def test_disk_free_of_a_folder_to_come(tmp_path: Path) -> None:
    there, coming = disk_free(tmp_path), disk_free(tmp_path / "a" / "b")
    assert there > 0
    assert abs(there - coming) < 2**30


def use_tree(monkeypatch: pytest.MonkeyPatch, root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(hardware, "CGROUPS", root / "cgroup")
    monkeypatch.setattr(hardware, "PROC", root / "proc")
    monkeypatch.setattr(hardware, "CPUS", root / "cpus")


GIB = 2**30


def test_limits_of_cgroup_2_hold_at_every_level(monkeypatch, tmp_path: Path) -> None:
    use_tree(
        monkeypatch,
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/me\n",
            "cgroup/pod/memory.max": f"{GIB}\n",
            "cgroup/pod/memory.current": f"{GIB // 2}\n",
            "cgroup/pod/memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
            "cgroup/pod/me/memory.max": "max\n",
            "cgroup/pod/me/memory.current": "77\n",
            "cgroup/pod/cpu.max": "max 100000\n",
            "cgroup/pod/me/cpu.max": "150000 100000\n",
        },
    )
    assert hardware._memory() == (GIB, GIB - GIB // 4)
    assert hardware._cpu_quota() == 1.5
    assert hardware._cores() == 1


def test_limits_of_cgroup_1(monkeypatch, tmp_path: Path) -> None:
    use_tree(
        monkeypatch,
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cgroup/memory/memory.usage_in_bytes": "1\n",
            "cgroup/memory/box/memory.limit_in_bytes": f"{GIB}\n",
            "cgroup/memory/box/memory.usage_in_bytes": f"{GIB // 2}\n",
            "cgroup/memory/box/memory.stat": "inactive_file 9\ntotal_inactive_file 1024\n",
            "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "cgroup/cpu/box/cpu.cfs_quota_us": "200000\n",
            "cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
        },
    )
    assert hardware._memory() == (GIB, GIB // 2 + 1024)
    assert hardware._cpu_quota() == 2.0


@pytest.mark.skipif(not LINUX, reason="thread siblings are read from Linux's /sys")
def test_hardware_threads_of_one_core_count_once(monkeypatch, tmp_path: Path) -> None:
    use_tree(
        monkeypatch,
        tmp_path,
        {f"cpus/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n" for n in range(8)},
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5, 6})
    assert hardware._cores() == 3  # cores 0, 1 and 2


@pytest.mark.skipif(not LINUX, reason="the peak can be reset on Linux only")
def test_peak_memory_sees_what_was_freed_and_forgets_what_was_before() -> None:
    size = 200_000_000
    with PeakMemory() as idle:
        pass
    with PeakMemory() as busy:
        np.ones(size, dtype=np.uint8)  # touched, then freed at once
    with PeakMemory() as after:
        pass
    if not busy.exact:
        pytest.skip("this container does not let a process reset its peak")
    assert busy.bytes - idle.bytes == pytest.approx(size, rel=0.05)
    assert after.bytes - idle.bytes < 0.2 * size


def test_peak_memory_says_when_it_is_only_an_upper_bound(monkeypatch, tmp_path: Path) -> None:
    peaks = iter([100, 100, 100, 250])
    monkeypatch.setattr(hardware, "PROC", tmp_path)
    monkeypatch.setattr(hardware, "_resident_peak", lambda: next(peaks))
    with PeakMemory() as small:
        pass
    assert (small.bytes, small.exact) == (100, False)
    with PeakMemory() as large:
        pass
    assert (large.bytes, large.exact) == (250, True)
