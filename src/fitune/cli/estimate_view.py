"""How an estimate reads on a screen.

Knows results of `api.estimate` and rich; knows nothing of arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fitune.cli.screen import Screen
from fitune.ladder.figures import duration, number, size

if TYPE_CHECKING:
    from rich.table import Table

    from fitune.estimates import Budget, EstimateResult, FittingModels, Plan

WIDE = 110
"""Columns from which on there is room to say what each term is."""

BAR = 14

MEANINGS = {
    "weights": "the model's own values",
    "adapters": "matrices that train beside the weights",
    "gradients": "a value for each that trains, as long as it is needed",
    "optimizer states": "what the optimizer remembers of each that trains",
    "averaged weights": "an average over the steps of each that trains",
    "activations": "what the forward pass keeps for the backward pass",
    "recomputed activations": "of the layer that is computed again",
    "logits and loss": "a number for each word of the vocabulary, and the loss",
    "logits": "a number for each word of the vocabulary",
    "temporaries": "results that live for a moment",
    "batch": "tokens and masks",
    "kv cache": "keys and values of the tokens so far",
    "encoder output": "what the encoder made of the prompt",
    "gathered layers": "layers whole, while they are computed",
    "unreduced gradients": "of a layer, before devices share them",
    "communication buffers": "that devices send from and receive into",
}

ANSWERING = {"activations": "what is computed on the way"}
"""Where nothing is learned, nothing is kept for a backward pass."""

PHASES = {
    "forward": "in the forward pass",
    "loss": "while the loss is computed",
    "backward": "in the backward pass",
    "clip": "while gradients are clipped",
    "update": "in the optimizer's update",
    "evaluation": "in the evaluation between steps",
    "prefill": "while the prompts are read",
    "decode": "while a token is written",
}


def show(screen: Screen, result: Any) -> None:
    """Print a result of `api.estimate`."""
    if hasattr(result, "models"):
        _show_models(screen, result)
        return
    _show_head(screen, result)
    if result.plan is not None:
        _show_plan(screen, result, result.plan)
    screen.console.print(terms_table(result, width=screen.console.width))
    screen.say()
    screen.say(peak_sentence(result))
    screen.say("By phase: " + phases_line(result.estimate.phases))
    _show_host(screen, result)
    _show_process(screen, result)
    screen.say(verdict(result), style="bold green" if result.fits else "bold red")
    for time in result.times:
        cost = "" if time.cost is None else f", costs {time.cost:.2g}"
        screen.say(
            f"{time.work.capitalize()}: about {duration(time.seconds)}{cost}, bound by "
            f"{time.bound} ({time.label})."
        )
    if result.dtypes:
        _show_dtypes(screen, result)
    if result.explanation is not None:
        _show_explanation(screen, result)
    if result.measured is not None:
        _show_measured(screen, result)
    screen.notes(result.notes)
    if result.plot is not None:
        screen.say(f"picture: {result.plot}", wrap=False)


def _show_head(screen: Screen, result: EstimateResult) -> None:
    estimate = result.estimate
    trained = ""
    if result.training is not None:
        share = estimate.trainable / max(1, estimate.parameters)
        trained = (
            ", all of which train"
            if share == 1
            else f", {number(estimate.trainable)} train ({share:.2%})"
        )
    screen.say(f"{result.model}: {number(estimate.parameters)} parameters{trained}", style="bold")
    screen.say(result.in_words)
    screen.say(f"from {result.origin}", style="dim")
    screen.say()


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)


def terms_table(result: EstimateResult, *, width: int) -> Table:
    """What the bytes are at the peak; activations by the class of module that keeps them."""
    from rich.text import Text

    wide = width >= WIDE
    made = _table()
    made.add_column("at the peak", no_wrap=True)
    made.add_column("bytes", justify="right", no_wrap=True)
    made.add_column("share", justify="right", no_wrap=True)
    made.add_column("", no_wrap=True, min_width=BAR)
    if wide:
        made.add_column("", style="dim")
    total = result.peak_bytes
    meanings = MEANINGS | ANSWERING if result.inference else MEANINGS
    for name, amount, inner in grouped(result.terms):
        share = amount / max(1, total)
        cells = [
            Text(f"  {name}" if inner else name, "dim" if inner else ""),
            Text(size(amount), "dim" if inner else ""),
            Text(percent(share), "dim" if inner else ""),
            Text("" if inner else bar(share), "blue"),
        ]
        made.add_row(*cells, *([Text(meanings.get(name, ""))] if wide else []))
    made.add_section()
    together = "together, on each device" if (result.training or {}).get("shard") else "together"
    made.add_row(Text(together, "bold"), Text(size(total), "bold"), *[""] * (3 if wide else 2))
    return made


def grouped(terms: Mapping[str, int]) -> Iterator[tuple[str, int, bool]]:
    """(name, bytes, whether it is a part of the line above), the largest first."""
    sums: dict[str, int] = {}
    for name, amount in terms.items():
        group = name.partition(": ")[0]
        sums[group] = sums.get(group, 0) + amount
    for group, amount in sorted(sums.items(), key=lambda item: -item[1]):
        yield group, amount, False
        parts = {n: a for n, a in terms.items() if n.startswith(f"{group}: ")}
        if len(parts) > 1:
            for name, part in sorted(parts.items(), key=lambda item: -item[1]):
                yield name.partition(": ")[2], part, True


def percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.0005 else f"{share * 100:.1f} %"


def bar(share: float) -> str:
    """A share as a bar of at most BAR characters, to an eighth of a character."""
    eighths = round(share * BAR * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def peak_sentence(result: EstimateResult) -> str:
    """When and where the peak is."""
    at = result.estimate.peak_at
    words = [f"The peak is {PHASES.get(at.phase, f'in phase {at.phase}')}"]
    if at.operation:
        words.append(f"when {operation_name(at.operation)} allocates")
    module = at.module.removesuffix(" -1").strip()
    if module:
        words.append(f"in {module}")
    elif at.phase in ("loss", "backward"):
        words.append("for the loss")
    return " ".join(words) + "."


def operation_name(operation: str) -> str:
    """``"aten._log_softmax_backward_data.default"`` → ``"_log_softmax_backward_data"``."""
    parts = operation.split(".")
    return parts[1] if len(parts) > 1 else operation


def phases_line(phases: Mapping[str, int]) -> str:
    """The most in each, in the order in which they come."""
    order = [*PHASES, *phases]
    named = sorted(phases.items(), key=lambda item: order.index(item[0]))
    return ", ".join(f"{name} {size(most)}" for name, most in named) + "."


def verdict(result: EstimateResult) -> str:
    """Whether it fits, and by how much."""
    budget, where = result.budget, place(result.budget)
    left = budget.bytes - result.needed_bytes
    if left < 0:
        return f"Does not fit into {where}: it takes {size(-left)} more."
    tight = left < 0.05 * budget.bytes and result.cuda is None
    beside = "; what allocators and libraries take beside tensors may be more" if tight else ""
    return f"Fits into {where}: {size(left)} are left{beside}."


def place(budget: Budget) -> str:
    """Whose memory, and how much."""
    if not budget.given:
        return f"the {size(budget.bytes)} that {budget.of} has free"
    if budget.of == "the budget":
        return f"the budget of {size(budget.bytes)}"
    return f"{size(budget.bytes)} of {budget.of}"


def _show_host(screen: Screen, result: EstimateResult) -> None:
    if result.host_bytes:
        parts = ", ".join(f"{name} {size(amount)}" for name, amount in result.host_bytes.items())
        screen.say(f"On the host, for each device: {parts}.")


def _show_process(screen: Screen, result: EstimateResult) -> None:
    process = result.cuda
    if process is None:
        return
    made = _table()
    made.add_column("on the GPU, estimated and not measured", no_wrap=True)
    made.add_column("bytes", justify="right", no_wrap=True)
    made.add_column("give or take", justify="right", no_wrap=True)
    rows = {
        "live: tensors and cuBLAS workspaces": ("live", process.live),
        "allocated: in blocks": ("allocated", process.allocated),
        "reserved: in segments": ("reserved", process.reserved),
        **{f"beyond: {name}": (name, amount) for name, amount in process.outside.items()},
    }
    for label, (name, amount) in rows.items():
        made.add_row(label, size(amount), f"{process.uncertainty.get(name, 0):.0%}")
    made.add_section()
    made.add_row("the process: reserved and beyond", size(process.total), "")
    screen.say()
    screen.console.print(made)
    screen.say()


def _show_plan(screen: Screen, result: EstimateResult, plan: Plan) -> None:
    from rich.text import Text

    lengths = list(dict.fromkeys(cell.seq for cell in plan.cells))
    made = _table()
    screen.say(
        f"Rows of the largest micro-batch that fits ({size(plan.tensor_bytes)} for tensors)",
        style="bold",
    )
    made.add_column("method", no_wrap=True)
    for length in lengths:
        made.add_column(f"{length:,} tokens", justify="right", no_wrap=True)
    for way in dict.fromkeys(str(cell.way) for cell in plan.cells):
        cells = []
        for cell in plan.cells:
            if str(cell.way) != way:
                continue
            if (cell.way, cell.seq) == (plan.recommended.way, plan.recommended.seq):
                cells.append(Text(f"→ {plan.recommended.rows:,}", "bold green"))
            elif cell.rows:
                cells.append(Text(f"{cell.rows:,}"))
            else:
                cells.append(Text(f"needs {size(cell.peak_bytes)}", "dim"))
        made.add_row(way, *cells)
    screen.console.print(made)
    screen.say()
    best = plan.recommended
    every = best.way.checkpointing
    checkpointing = " --checkpointing" if every else ""
    if every and every is not True:
        checkpointing = f" --checkpoint-every {every}"
    rows = f"{best.rows:,} row{'s' if best.rows > 1 else ''}"
    screen.say(f"Recommended: {best.way}, micro-batches of {rows} of {best.seq:,} tokens:")
    screen.say(
        f"  fitune estimate {result.model} --method {best.way.method}{checkpointing} "
        f"--seq {best.seq} --batch {best.rows}",
        wrap=False,
    )
    screen.say()


def _show_dtypes(screen: Screen, result: EstimateResult) -> None:
    from fitune.memory.familiar import printed

    true = {row.dtype: row for row in result.true_dtypes}
    made = _table()
    for column in ("dtype", "largest layer", "total size", "Adam", "weights", "answering"):
        made.add_column(column, justify="left" if column == "dtype" else "right")
    made.add_column("training", justify="right")
    for row in result.dtypes:
        familiar = [
            printed(row.largest_layer_bytes),
            printed(row.total_bytes),
            "–" if row.adam_bytes is None else printed(row.adam_bytes),
        ]
        found = true.get(row.dtype)
        traced = ["–"] * 3
        if found is not None:
            training = found.training_bytes
            traced = [
                size(found.weights_bytes),
                size(found.inference_bytes),
                "–" if training is None else size(training),
            ]
        made.add_row(row.dtype, *familiar, *traced)
    screen.say()
    screen.say("As accelerate estimate-memory has it (left), and by the trace (right)", "bold")
    screen.console.print(made)
    ways = [f"{row.dtype} {row.training}" for row in result.true_dtypes if row.training]
    screen.say(
        "Left: no output head unless the config names a class, no activations, 1 GB is 1 GiB. "
        f"Right: training is {'; '.join(ways)}; rows and tokens as above.",
        style="dim",
    )


def _show_explanation(screen: Screen, result: EstimateResult) -> None:
    from rich.text import Text

    told = result.explanation
    assert told is not None
    letters = "ABC"[: len(told.formulas)]
    made = _table()
    made.add_column("", no_wrap=True)
    made.add_column("traced", justify="right", no_wrap=True, style="bold")
    for letter in letters:
        made.add_column(letter, justify="right", no_wrap=True)
    for name, amount in told.traced.items():
        said = [f.terms.get(name) for f in told.formulas]
        if amount or any(said):
            made.add_row(name, size(amount), *["" if s is None else size(s) for s in said])
    made.add_section()
    totals = [size(formula.total) for formula in told.formulas]
    made.add_row("together", size(sum(told.traced.values())), *totals)
    screen.say()
    screen.say("Textbook formulas beside the trace", style="bold")
    screen.console.print(made)
    for letter, formula in zip(letters, told.formulas, strict=True):
        screen.console.print(Text(f"  {letter}  {formula.formula}"))
        screen.console.print(Text(f"     {formula.source}", "dim"))
    if told.reasons:
        screen.say()
        screen.say("Where the first formula and the trace part", style="bold")
        screen.notes(told.reasons)
    screen.say()
    screen.say("One model, many figures (in 16 bit)", style="bold")
    for way, amount in told.weights.items():
        screen.say(f"  {amount / 1e9:8.2f} GB = {amount / 2**30:8.2f} GiB  {way}")
    screen.say()


def _show_measured(screen: Screen, result: EstimateResult) -> None:
    measured = result.measured
    assert measured is not None
    made = _table()
    made.add_column("at the peak", no_wrap=True)
    for column in ("predicted", "measured", "off by"):
        made.add_column(column, justify="right", no_wrap=True)
    names = list(dict.fromkeys([*result.terms, *measured.terms]))
    for name in names:
        made.add_row(name, *compared(result.terms.get(name, 0), measured.terms.get(name, 0)))
    made.add_section()
    made.add_row("by the allocator", *compared(result.peak_bytes, measured.peak_bytes))
    screen.say()
    screen.say(
        f"Predicted, and measured on this machine with random weights in "
        f"{duration(measured.seconds)}",
        style="bold",
    )
    screen.console.print(made)
    screen.say()


def compared(predicted: int, measured: int) -> Sequence[str]:
    """Two amounts, and by how much the first is off."""
    off = f"{(predicted - measured) / measured:+.2%}".replace("-", "−") if measured else "–"
    return (size(predicted), size(measured), off)


def _show_models(screen: Screen, result: FittingModels) -> None:
    how = result.training
    screen.say(
        f"Models of the catalogue that fit into {place(result.budget)}, largest first",
        style="bold",
    )
    rows = f"{how['batch']:,} row{'s' if how['batch'] > 1 else ''}"
    screen.say(
        f"{how['method']}, {how['optimizer']}, {how['dtype']}, {rows} of {how['seq']:,} tokens"
    )
    screen.say()
    made = _table()
    made.add_column("model", overflow="fold")
    made.add_column("parameters", justify="right", no_wrap=True)
    made.add_column("peak", justify="right", no_wrap=True)
    made.add_column("licence")
    for model in result.models:
        made.add_row(
            model.model, number(model.parameters), size(model.peak_bytes), model.licence or ""
        )
    screen.console.print(made)
    screen.notes(result.notes)
