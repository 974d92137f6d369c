"""The real step on this machine, with random weights: what an estimate is held against.

Knows scenarios, the CPU allocator's and CUDA's accounts; knows nothing of estimates. The step runs
twice: once alone, for the peak that the allocator reports, and once under the tracker of live
storages, for what the bytes were.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fitune.memory.measure import allocator_peak
from fitune.memory.options import Inference, Training
from fitune.models.pooling import Pooling


@dataclass(frozen=True)
class Trial:
    """What was measured.

    Attributes:
        peak_bytes: the most the allocator had handed out at any moment.
        terms: name → bytes at the peak of live storages; they sum to it, and it differs from
            `peak_bytes` by what libraries allocate beside tensors.
        seconds: of the first, unobserved step.
    """

    peak_bytes: int
    terms: dict[str, int]
    seconds: float


def try_training(config: Any, training: Training, pooling: Pooling | None = None) -> Trial:
    """Two updates and an evaluation, as `trace.run` does on fake tensors."""
    import torch

    from fitune.memory.scenario import apply_method, assemble, build_model, ready
    from fitune.memory.stacks import Layer, everything, layers_of_kinds
    from fitune.memory.trace import Places, find_peaks, run, watch

    layers: list[Layer] = []

    def build() -> Any:
        torch.manual_seed(0)
        with torch.device(training.device):
            model = build_model(config, training, pooling)
            layers[:] = layers_of_kinds(model, config)
            return ready(apply_method(model, training), training)

    def steps(model: Any) -> None:
        with torch.device(training.device):
            scenario = assemble(model, training)
            scenario.give_gradients()
            scenario.update()
            scenario.step()
            scenario.evaluate()

    peak, seconds = _measured(build, steps, training.device)
    model = build()
    places = Places(model, everything(layers))
    with torch.device(training.device):
        scenario = assemble(model, training)
        storages = watch(scenario)
        run(scenario, storages)
    peaks = find_peaks(storages.allocations, places)
    return Trial(peak, max(peaks.values(), key=lambda each: each.bytes).terms, seconds)


def try_inference(config: Any, inference: Inference) -> Trial:
    """Reading the prompts, and the step that fills the context, as `inference.run` does."""
    import torch

    from fitune.memory import answering
    from fitune.memory.inference import name_term, run
    from fitune.memory.stacks import everything, layers_of_kinds
    from fitune.memory.storages import LiveStorages
    from fitune.memory.trace import WEIGHTS, Places, find_peaks
    from fitune.models.architecture import kind_of

    def build() -> Any:
        torch.manual_seed(0)
        with torch.device(inference.device):
            return answering.build_model(config, inference)

    def answer(model: Any) -> None:
        with torch.device(inference.device), torch.no_grad():
            if kind_of(config) == "encoder":
                answering.encode(model, inference)
                return
            answers = answering.read(model, inference)
            answering.fill(answers, inference.context - 1)
            answering.write(answers)

    peak, seconds = _measured(build, answer, inference.device)
    model = build()
    places = Places(model, everything(layers_of_kinds(model, config)))
    with torch.device(inference.device), torch.no_grad():
        storages = LiveStorages(model)
        storages.name(WEIGHTS, [*model.parameters(), *model.buffers()])
        kept = run(model, inference, storages)
    peaks = find_peaks(storages.allocations, places, name_term)
    del kept
    return Trial(peak, max(peaks.values(), key=lambda each: each.bytes).terms, seconds)


def _measured(
    build: Callable[[], Any], work: Callable[[Any], None], device: str
) -> tuple[int, float]:
    """Peak bytes, the model's own included, and the seconds of `work`."""
    import torch

    model = build()
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        work(model)
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated()), time.perf_counter() - start
    # Else libkineto tells the terminal when it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    held = _held(model)
    start = time.perf_counter()
    above = allocator_peak(lambda: work(model))
    return held + above, time.perf_counter() - start


def _held(model: Any) -> int:
    """Bytes of the model's storages, each once; four-bit weights bring their scales."""
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        while state is not None:
            tensors += [state.absmax, state.code]
            tensors += [state.offset] if getattr(state, "offset", None) is not None else []
            state = getattr(state, "state2", None)
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())
