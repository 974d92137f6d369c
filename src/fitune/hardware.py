"""What this machine has, and how much memory a stretch of work took.

Knows the operating system; knows nothing of models, tasks or estimates. A container's limits
(CPU affinity, cgroup quota and memory limit, versions 1 and 2) count as the machine's, because
exceeding them slows or kills a run just as a smaller machine would. torch is imported only when
asked for: `import fitune` must stay fast.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]

from fitune.malloc import return_freed_memory

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Gpu:
    """A CUDA (or ROCm) device as torch sees it.

    Attributes:
        name: as the driver says.
        memory_total, memory_free: bytes; free is what no process holds.
        capability: CUDA compute capability, ``(8, 0)`` for an A100.
        native_bf16: multiplies bfloat16 matrices in hardware (capability 8.0 and up).
    """

    name: str
    memory_total: int
    memory_free: int
    capability: tuple[int, int]
    native_bf16: bool


@dataclass(frozen=True)
class Machine:
    """What this process may use.

    Attributes:
        system: operating system and architecture, ``"Linux x86_64"``.
        cpu: the processor's name.
        cores: physical cores this process may run on, quota included (at least 1): the number
            of threads that matrix products run best with.
        memory_total, memory_available: bytes, container limits included.
        native_bf16: the CPU multiplies bfloat16 in hardware (x86: AVX512-BF16 or AMX-BF16;
            Arm: FEAT_BF16). Without it bf16 is correct but slower than fp32.
        gpus: CUDA devices; None when nobody looked (torch was not loaded and not asked for).
        disk_free: bytes, where runs are written.
    """

    system: str
    cpu: str
    cores: int
    memory_total: int
    memory_available: int
    native_bf16: bool
    gpus: tuple[Gpu, ...] | None
    disk_free: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def this_machine(*, folder: str | Path = ".", load_torch: bool = False) -> Machine:
    """What this process may use now.

    Args:
        folder: on the disk whose free space is wanted; its nearest existing parent counts.
        load_torch: import torch to look for GPUs; otherwise they are looked for only if torch
            is loaded already.
    """
    total, available = _memory()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=_cores(),
        memory_total=total,
        memory_available=available,
        native_bf16=_cpu_has_bf16(),
        gpus=_gpus() if load_torch or "torch" in sys.modules else None,
        disk_free=disk_free(folder),
    )


def disk_free(folder: str | Path = ".") -> int:
    """Bytes this user may still write at `folder`, which need not exist yet."""
    path = Path(folder).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


class PeakMemory:
    """The most memory in use between entering and leaving, as a context manager.

        with PeakMemory() as peak:
            work()
        peak.bytes

    On CUDA: bytes of live tensors (torch's allocator). Otherwise: resident bytes of the process,
    everything loaded before included. Meters must not be nested: the kernel (and torch) keep one
    high-water mark, and the inner meter resets it.

    Attributes:
        exact: False where the mark cannot be reset (not Linux, or forbidden in a container) and
            the process had once used more than it did here: `bytes` is then an upper bound.
    """

    def __init__(self, device: Literal["cpu", "cuda"] = "cpu") -> None:
        self._cuda = device == "cuda"
        self._start = 0
        self._peak: int | None = None
        self.exact = True

    def __enter__(self) -> PeakMemory:
        self._peak = None
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
            return self
        return_freed_memory()  # of the work before, which is not this work's
        self.exact = _reset_resident_peak()
        self._start = _resident_peak()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._peak = self._read()

    @property
    def bytes(self) -> int:
        """The peak so far; after leaving, the peak inside."""
        return self._read() if self._peak is None else self._peak

    def _read(self) -> int:
        if self._cuda:
            import torch

            return int(torch.cuda.max_memory_allocated())
        peak = _resident_peak()
        if peak > self._start:  # a new mark of the whole process was set in here
            self.exact = True
        return peak


def _reset_resident_peak() -> bool:
    """Let the kernel count its high-water mark from now on; False where it cannot."""
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident_peak() -> int:
    status = PROC / "self/status"
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu_name() -> str:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.processor()
    for line in _read_text(PROC / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _cpu_has_bf16() -> bool:
    if sys.platform == "darwin":
        return _sysctl("hw.optional.arm.FEAT_BF16") == "1"
    for line in _read_text(PROC / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, Arm
            return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(value.split())
    return False


def _cores() -> int:
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        # Two hardware threads of one core share its matrix units: siblings count once.
        allowed = os.sched_getaffinity(0)
        siblings = {
            _read_text(CPUS / f"cpu{n}/topology/thread_siblings_list").strip() or str(n)
            for n in allowed
        }
        cores = len(siblings)
    return max(1, min(cores, int(_cpu_quota())))


def _cpu_quota() -> float:
    """CPUs' worth of time the cgroup may use; infinite without a limit."""
    quotas = [float("inf")]
    for group in _groups(""):
        quota, _, period = _read_text(group / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    for group in _groups("cpu"):
        limit = _read_number(group / "cpu.cfs_quota_us")
        each = _read_number(group / "cpu.cfs_period_us")
        if limit is not None and limit > 0 and each:
            quotas.append(limit / each)
    least = min(quotas)
    return least if least != float("inf") else 1 << 20


def _memory() -> tuple[int, int]:
    """Total and available bytes."""
    memory = psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    for controller, limit_file, used_file, cache_key in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in _groups(controller):
            limit = _read_number(group / limit_file)
            used = _read_number(group / used_file)
            if limit is None or limit >= memory.total or used is None:
                continue
            # File cache counts as used but is given back under pressure.
            cache = next(
                (
                    int(line.split()[1])
                    for line in _read_text(group / "memory.stat").splitlines()
                    if line.startswith(f"{cache_key} ")
                ),
                0,
            )
            total = min(total, limit)
            available = min(available, max(0, limit - (used - cache)))
    return total, available


def _groups(controller: str) -> list[Path]:
    """The folders of this process's cgroup and of all above it, for a version-1 controller, or
    for version 2 (`controller` empty). Limits of every level hold."""
    root = CGROUPS / controller
    path = ""
    for line in _read_text(PROC / "self/cgroup").splitlines():
        _, names, where = [*line.split(":", 2), "", ""][:3]
        if controller in names.split(","):
            path = where
    own = root / path.lstrip("/")
    # Inside a container the listed path may be the host's: then the mounted root is our own.
    return [root] + [p for p in (own, *own.parents) if root in p.parents]


def _gpus() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        capability = torch.cuda.get_device_capability(index)
        gpus.append(
            Gpu(
                name=torch.cuda.get_device_name(index),
                memory_total=total,
                memory_free=free,
                capability=capability,
                native_bf16=capability >= (8, 0),
            )
        )
    return tuple(gpus)


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_number(path: Path) -> int | None:
    text = _read_text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None
