"""Progress reads well in a log, and leaves a terminal as it was."""

from __future__ import annotations

import io
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fitune.cli.progress import Bar, Lines


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(steps: int, seconds_each: float) -> list[tuple[float, str]]:
    """(time, line) of everything written while `steps` steps pass."""
    clock, written = Clock(), []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append((clock.now, text.rstrip("\n")))
            return len(text)

    lines = Lines(Stream(), clock)
    for step in range(steps + 1):
        lines.progress("train", step, steps)
        clock.now += seconds_each
    return written


def test_a_first_sign_then_a_line_at_each_tenth() -> None:
    tenths = [f"train {n}/600" for n in range(60, 601, 60)]
    assert [line for _, line in run(600, 0.1)] == ["train 11/600", *tenths]


def test_a_line_at_every_step_when_steps_are_slow() -> None:
    assert [line for _, line in run(30, 11.0)] == [f"train {n}/30" for n in range(1, 31)]


def test_short_work_says_nothing() -> None:
    assert run(100, 0.001) == []


@given(st.integers(1, 300), st.floats(0.0, 30.0))
def test_never_silent_for_long_and_never_a_flood(steps: int, seconds_each: float) -> None:
    written = run(steps, seconds_each)
    end = steps * seconds_each
    times = [0.0, *(time for time, _ in written), end]
    silences = [later - earlier for earlier, later in pairwise(times)]
    assert max(silences) <= 10.0 + seconds_each + 1e-6
    assert len(written) <= 12 + end / 10.0
    assert len(written) <= 1 + end / 1.0


def test_labels_do_not_disturb_each_other_and_totals_may_be_zero() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    clock.now = 5.0
    lines.progress("read", 0, 0)
    clock.now = 10.0
    lines.progress("train", 1, 2)
    lines.notice("mind this")
    assert stream.getvalue() == "read 0/0\ntrain 1/2\nnote: mind this\n"


def test_the_bar_shows_words_in_brackets_and_is_gone_at_the_end() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, markup=False)
    with Bar(console) as bar:
        bar.progress("train [lora]", 1, 10)
        bar.progress("answer", 5, 5)
        bar.notice("the column [text] was chosen")
    text = stream.getvalue()
    assert "the column [text] was chosen" in text
    assert (
        text.rstrip().endswith("\x1b[?25h\x1b[1A\x1b[2K") or "\x1b[2K" in text.split("answer")[-1]
    )
