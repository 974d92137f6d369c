"""The command line: which verbs there are, and how a call ends.

Knows verbs, exit codes and how errors read on a screen; the work itself is in `api`. A verb's
module is imported when the verb is used, so that `fitune --help` stays fast.

    exit code 0    done
              1    a fault of fitune's own
              2    a mistake the user can mend: one sentence says how
            130    stopped by Ctrl-C or SIGTERM; the work is saved
            141    whoever read the output has gone (`| head`)
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from fitune.cli.parser import Parser
from fitune.errors import ConfigError, FituneError

# verb → (module, one line of help), in the order in which a user meets them.
VERBS: dict[str, tuple[str, str]] = {
    "estimate": ("fitune.cli.estimate", "will it fit? memory to train or to answer, from a config"),
    "check": ("fitune.cli.check", "is the data fit to learn from? what is masked, what learned?"),
    "ladder": ("fitune.cli.ladder", "climb from baseline to fine-tuned model, and recommend"),
    "tune": ("fitune.cli.tune", "train one approach with full control"),
    "evaluate": ("fitune.cli.evaluate", "score a saved run on rows"),
    "lm": ("fitune.cli.lm", "language models side by side, from n-grams to a transformer"),
    "doctor": ("fitune.cli.doctor", "what this machine has, what is missing, how to get it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one call of `fitune` and return its exit code; raises nothing.

    Args:
        argv: the words after `fitune`; default: the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows '?' instead of ending the run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # argparse, after printing help or the version
        return done.code if isinstance(done.code, int) else 0
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except BaseException as error:
        from fitune.cli.failure import report

        return report(error, words)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"fitune {version('fitune')}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        raise _unknown(verb)
    name, line = VERBS[verb]
    module = importlib.import_module(name)
    parser = Parser(prog=f"fitune {verb}", description=line[0].upper() + line[1:])
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(rest))
    return code


def _unknown(verb: str) -> FituneError:
    from fitune.taskproblems import near, short

    if verb.endswith((".yaml", ".yml")):
        return ConfigError("a verb is missing", fix=f"did you mean `fitune ladder {verb}`")
    kind = "option" if verb.startswith("-") else "verb"
    names = [*VERBS, "--help", "--version"] if kind == "option" else VERBS
    return ConfigError(f"there is no {kind} '{short(verb, quote=False)}'", fix=near(verb, names))


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  fitune {verb:<{width}}   {line}" for verb, (_, line) in VERBS.items())
    return f"""\
fitune: fit, then tune. Do I need to fine-tune, and was it worth it?

{verbs}

  fitune VERB --help       the options of a verb
  fitune --version         the version

Start with `fitune ladder examples/pydocs.yaml`: it needs no network."""
