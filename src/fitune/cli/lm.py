"""`fitune lm`: language models side by side on one corpus.

Parses, calls `api.lm`, prints; what is printed is in `lm_view`.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from fitune.cli.parser import Parser, positive
from fitune.cli.screen import Screen

OPTIONS = (
    *("tokens", "unit", "order", "states", "hidden", "layers", "epochs", "vocabulary"),
    *("valid", "test", "save", "load", "plot", "minutes", "seed"),
)
"""Of `api.lm`, beside the models."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("corpus", metavar="CORPUS", help="a text file, or a folder of them")
    parser.add_argument(
        "--models",
        metavar="NAMES",
        help="of ngram, hmm, rnn, lstm, gru and transformer, with commas between; and models that "
        "exist, scored as they are: smollm2-135m, a folder, a GGUF file; default: the six",
    )
    text = parser.add_argument_group("what is read")
    text.add_argument(
        "--tokens", default="words", help="words, characters or subwords; default: words"
    )
    text.add_argument(
        "--unit",
        default="auto",
        help="what a sequence is: lines, sections (up to an empty line) or documents (a whole "
        "file); default: sections where there are some, else lines",
    )
    text.add_argument(
        "--vocabulary",
        type=positive,
        metavar="N",
        help="tokens at most; default: 10,000 words, 4,000 subwords, all characters",
    )
    text.add_argument(
        "--valid",
        default="0.1",
        metavar="FILE|SHARE",
        help="to stop training by: a file, or a share of the corpus; default: 0.1",
    )
    text.add_argument(
        "--test", metavar="FILE", help="to score on; default: as large a share of the corpus"
    )
    models = parser.add_argument_group("what the models are made of")
    models.add_argument("--order", type=positive, default=5, help="of n-grams; default: 5")
    models.add_argument(
        "--states", type=positive, default=32, help="of the hidden Markov model; default: 32"
    )
    models.add_argument(
        "--hidden", type=positive, default=128, help="size of networks' layers; default: 128"
    )
    models.add_argument(
        "--layers", type=positive, help="of networks; default: 1, of a transformer 2"
    )
    training = parser.add_argument_group("how long networks train")
    training.add_argument(
        "--epochs", type=float, help="over the training texts; default: by their size"
    )
    training.add_argument(
        "--minutes", type=float, metavar="M", help="for all networks together; default: no limit"
    )
    training.add_argument("--seed", type=int, default=0, help="of what is drawn; default: 0")
    files = parser.add_argument_group("what is kept")
    files.add_argument("--save", type=Path, metavar="FOLDER", help="write the models there")
    files.add_argument(
        "--load", type=Path, metavar="FOLDER", help="score the models there; nothing is trained"
    )
    files.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw perplexity by size of the training text, .html or .svg; trains on an eighth, a "
        "quarter and half of it, too",
    )
    parser.add_output()


def run(args: Namespace) -> int:
    from fitune import api

    screen = Screen(args)
    options = {name: getattr(args, name) for name in OPTIONS}
    if args.models is not None:
        options["models"] = args.models
    with screen.watcher() as on:
        result = api.lm(args.corpus, on=on, **options)
    if screen.json:
        screen.result(result.to_json())
        return 0
    from fitune.cli.lm_view import show

    show(screen, result)
    return 0
