"""What training or answering needs at the least, where only the shapes of tensors are known.

Knows shapes and optimizers; knows nothing of modules, so nothing of what passes through them. The
optimizer is the real one, and what it keeps is what it makes of parameters of these shapes.
"""

from __future__ import annotations

import math
from typing import Any

from fitune.config import Finetuned
from fitune.memory.estimate import Estimate, Moment, PeakAt, _estimate
from fitune.models.shapes import Shapes

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def estimate_update(shapes: Shapes, options: Finetuned) -> Estimate:
    """Weights, gradients, optimizer states and what an update takes, all parameters trained.

    Args:
        options: of which the optimizer and the dtype count.
    """
    import torch
    from torch import nn

    from fitune.memory.fake import fake_tensors
    from fitune.memory.stacks import Selection
    from fitune.memory.storages import BACKWARD, LiveStorages
    from fitune.memory.trace import GRADIENTS, WEIGHTS, Places, Trace, find_peaks
    from fitune.training.optim import OPTIMIZERS, parameter_groups
    from fitune.training.precision import precision

    dtype = precision(options.dtype, "full", decoder=True).weights
    model: Any = nn.Module()
    with fake_tensors():
        for number, shape in enumerate(shapes.values()):
            model.register_parameter(f"p{number}", nn.Parameter(torch.empty(shape, dtype=dtype)))
        parameters = dict(model.named_parameters())
        optimizer = OPTIMIZERS[options.optimizer](
            parameter_groups(
                parameters,
                head=[],
                learning_rate=1e-5,
                head_learning_rate=1e-5,
                weight_decay=options.weight_decay,
            ),
            options,
        )
        storages = LiveStorages(model)
        storages.name(WEIGHTS, parameters.values())
        storages.watch(optimizer)
        with storages:
            for _ in range(2):  # in the first update states come to be, one after the other
                with storages.phase(BACKWARD):
                    for parameter in parameters.values():
                        parameter.grad = torch.empty_like(parameter)
                    given = [parameter.grad for parameter in parameters.values()]
                storages.name(GRADIENTS, [gradient for gradient in given if gradient is not None])
                del given
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                storages.next_round()
    count = sum(math.prod(shape) for shape in shapes.values())
    allocations = storages.allocations
    peaks = find_peaks(allocations, Places(model, Selection((), ())))
    return _estimate(Trace(peaks, tuple(allocations), parameters=count, trainable=count))


def weigh(shapes: Shapes, dtype: str) -> Estimate:
    """The weights, held in `dtype` to answer with."""
    count = sum(math.prod(shape) for shape in shapes.values())
    terms = {"weights": count * BYTES[dtype]}
    total = terms["weights"]
    return Estimate(
        parameters=count,
        trainable=0,
        peak_bytes=total,
        terms=terms,
        peak_at=PeakAt("forward", "", ""),
        phases={"forward": total},
        timeline=(Moment(0, "forward", "", total, terms),),
    )
