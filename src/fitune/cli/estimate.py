"""`fitune estimate`: will it fit? Memory to train or to answer, from a model's config alone.

Parses, calls `api.estimate`, prints; what is printed is in `estimate_view`.
"""

from __future__ import annotations

import argparse
from argparse import Namespace

from fitune.cli.parser import Parser, positive
from fitune.cli.screen import Screen
from fitune.collector import uncollected

OPTIONS = (
    *("inference", "method", "objective", "rank", "target_modules", "freeze_layers", "optimizer"),
    *("dtype", "batch", "seq", "padded", "segments", "shared_prefix", "micro_batches"),
    *("answer_tokens", "labels", "checkpointing", "lora_init", "virtual_tokens", "ema", "neftune"),
    "attention",
    *("context", "prompt", "requests", "kv_dtype", "devices", "shard", "offload"),
    *("budget", "device", "price", "exact", "measure", "dtypes", "explain", "plot"),
)
"""Of `api.estimate`."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a name of the catalogue such as llama-3.1-8b, a folder or config.json, a GGUF or "
        "safetensors file, a file of parameter shapes, or a Hub id (fetches its config only); "
        "without: which models of the catalogue fit the budget",
    )
    _training(parser.add_argument_group("training (chosen as `fitune tune` would where not given)"))
    _answering(parser.add_argument_group("answering instead of training"))
    _several(parser.add_argument_group("several devices, each with rows of its own"))
    _memory(parser.add_argument_group("what it is held against"))
    _output(parser.add_argument_group("what is shown"))
    parser.add_output()


def _training(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--method",
        help="full, freeze, head, bitfit, lora, dora, qlora, ia3, prompt-tuning or prefix-tuning",
    )
    group.add_argument(
        "--objective",
        metavar="NAME",
        help="classify or masked for encoders; sft, dpo (rows are pairs of answers) or pretrain "
        "for decoders",
    )
    group.add_argument("--rank", type=positive, help="of adapters; default: 16")
    group.add_argument(
        "--target-modules",
        metavar="NAMES",
        help="that get an adapter, e.g. q_proj,v_proj; default: all-linear",
    )
    group.add_argument(
        "--freeze-layers", type=positive, metavar="K", help="for freeze: the lowest K stay"
    )
    group.add_argument(
        "--optimizer", help="adamw, sgd, momentum, adafactor, lion, adamw-8bit, paged-adamw-8bit"
    )
    group.add_argument("--dtype", help="fp32, bf16 or pure-bf16; for answering fp32, bf16 or fp16")
    group.add_argument("--batch", type=positive, metavar="ROWS", help="of one micro-batch")
    group.add_argument("--seq", type=positive, metavar="TOKENS", help="of a row")
    group.add_argument(
        "--padded",
        action="store_true",
        help="rows are padded to one length, and some are shorter; default: decoders' rows are "
        "laid end to end",
    )
    group.add_argument(
        "--segments",
        type=positive,
        metavar="N",
        help="rows in each --seq tokens, of rows laid end to end; default: 1",
    )
    group.add_argument(
        "--shared-prefix",
        type=positive,
        metavar="N",
        help="tokens that rows laid end to end all begin with, an instruction say, which are "
        "computed once; default: none",
    )
    group.add_argument(
        "--micro-batches",
        "--accumulation",
        type=positive,
        metavar="N",
        help="of one optimizer step, whose gradients add up; default: 1",
    )
    group.add_argument(
        "--answer-tokens",
        type=positive,
        metavar="TOKENS",
        help="of a row that are learned; default: all but the first",
    )
    group.add_argument("--labels", type=positive, metavar="N", help="of a classifier; default: 2")
    group.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        help="keep only what enters each layer, and compute the rest again",
    )
    group.add_argument(
        "--checkpoint-every",
        dest="checkpointing",
        type=positive,
        metavar="N",
        help="the same of every N-th layer only",
    )
    group.add_argument(
        "--lora-init", metavar="HOW", help="for lora: zero, or pissa, which keeps its start, too"
    )
    group.add_argument(
        "--virtual-tokens",
        type=positive,
        metavar="N",
        help="for prompt-tuning and prefix-tuning; default: 20",
    )
    group.add_argument(
        "--ema", type=float, metavar="DECAY", help="an average of the weights is kept, e.g. 0.999"
    )
    group.add_argument(
        "--neftune", type=float, metavar="ALPHA", help="noise on the embeddings, e.g. 5"
    )
    group.add_argument("--attention", default="auto", help="auto, eager or sdpa")


def _answering(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--inference", action="store_true", help="ask about answering")
    group.add_argument(
        "--context", type=positive, metavar="TOKENS", help="of a request, prompt and answer"
    )
    group.add_argument(
        "--prompt",
        type=positive,
        metavar="TOKENS",
        help="read in one pass; default: all but the last",
    )
    group.add_argument(
        "--requests", type=positive, metavar="N", help="answered side by side; default: 1"
    )
    group.add_argument("--kv-dtype", help="of cached keys and values: int8 or int4")


def _several(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--devices", type=positive, metavar="N", help="that train one model")
    group.add_argument(
        "--shard",
        metavar="HOW",
        help="ddp, fsdp, zero1, zero2 or zero3 as torch does it, or deepspeed-zero1, -zero2, "
        "-zero3; default: fsdp",
    )
    group.add_argument("--offload", action="store_true", help="what is divided lives on the host")


def _memory(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--budget", metavar="SIZE", help="memory on each device, e.g. 24GiB; default: the device's"
    )
    group.add_argument(
        "--device",
        metavar="NAME",
        help="e.g. 'RTX 4090', 'A100 80GB', 'M4 Max 64GB'; default: this machine",
    )
    group.add_argument(
        "--price", type=float, metavar="PER_HOUR", help="of the device, to tell what a step costs"
    )


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--exact", action="store_true", help="trace every layer")
    group.add_argument(
        "--measure", action="store_true", help="run the real step here, with random weights, too"
    )
    group.add_argument(
        "--dtypes",
        action="store_true",
        help="the table of accelerate estimate-memory, too, and what is true beside it",
    )
    group.add_argument(
        "--explain",
        action="store_true",
        help="textbook formulas, too, and where and why they part from the trace",
    )
    group.add_argument(
        "--plot", metavar="FILE", help="write a picture of bytes over the step: .svg or .html"
    )


def run(args: Namespace) -> int:
    with uncollected():
        from fitune import api

    screen = Screen(args)
    options = {name: getattr(args, name) for name in OPTIONS}
    with screen.watcher() as on:
        result = api.estimate(args.model, on=on, **options)
    if screen.json:
        screen.result(result.to_json())
        return 0
    from fitune.cli.estimate_view import show

    show(screen, result)
    return 0
