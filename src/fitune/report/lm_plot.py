"""A picture of perplexity against the size of the training text, a line for each model.

Knows figures of language models and how to draw; knows nothing of how they came about. One SVG
without anything from elsewhere, alone or in a page that also says the figures. Both axes are
logarithmic: a line that is straight there is a power law.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fitune.ladder.figures import number
from fitune.language_models.figures import CurvePoint, ModelFigures

COLOURS = ("#4c6ef5", "#e08e0b", "#0b8f83", "#d6487e", "#8a56c9", "#2aa7c9", "#b58a5a", "#7a8290")

WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 72, 176, 48, 56
LABEL = 17
"""Units of height of a label, so that none lies on another."""

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1b1d21; }
  .muted { fill: #5a606a; } .bold { font-weight: 600; }
  .grid { stroke: #1b1d21; stroke-opacity: .12; } .page { fill: #fff; }
  .line { fill: none; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e7e9ed; } .muted { fill: #a2a9b4; } .page { fill: #16181d; }
    .grid { stroke: #e7e9ed; }
  }
"""


@dataclass(frozen=True)
class Line:
    """A model's points, smallest training text first."""

    name: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Picture:
    """What is drawn.

    Attributes:
        title: the corpus.
        tokens: what the text is counted in.
        lines: one a model, those of finite perplexity.
    """

    title: str
    tokens: str
    lines: tuple[Line, ...]

    @classmethod
    def of(cls, corpus: str, tokens: str, models: Sequence[ModelFigures]) -> Picture:
        """The models that have a curve."""
        lines = []
        for model in models:
            points = tuple(point for point in model.curve if math.isfinite(point.perplexity))
            if points:
                lines.append(Line(model.name, points))
        return cls(f"Perplexity of {corpus} by size of the training text", tokens, tuple(lines))

    def svg(self) -> str:
        """A document of its own."""
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{self._drawn()}\n'

    def page(self) -> str:
        """An HTML page with the picture and its figures."""
        sizes = sorted({point.tokens for line in self.lines for point in line.points})
        head = "".join(f"<th>{number(size)}</th>" for size in sizes)
        rows = "\n".join(
            f"<tr><td>{html.escape(line.name)}</td>{_row(line, sizes)}</tr>" for line in self.lines
        )
        return PAGE.format(
            title=html.escape(self.title),
            tokens=html.escape(self.tokens),
            drawing=self._drawn(),
            head=head,
            rows=rows,
        )

    def _drawn(self) -> str:
        title = html.escape(self.title)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-labelledby="title">',
            f'<title id="title">{title}</title>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<text class="bold" x="{LEFT}" y="22">{title}</text>',
        ]
        if self.lines:
            parts += _Canvas(self).drawn()
        return "\n".join([*parts, "</svg>"])


class _Canvas:
    """Coordinates for one picture."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        points = [point for line in picture.lines for point in line.points]
        self.sizes = sorted({point.tokens for point in points})
        self.x_range = _spread(self.sizes[0], self.sizes[-1], 1.06)
        values = [point.perplexity for point in points]
        self.y_range = _spread(min(values), max(values), 1.08)

    def x(self, tokens: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(tokens, self.x_range)

    def y(self, perplexity: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(perplexity, self.y_range)

    def drawn(self) -> list[str]:
        return [*self._grid(), *self._lines(), *self._labels()]

    def _grid(self) -> list[str]:
        parts = []
        for value in marks(*self.y_range):
            y = self.y(value)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text class="muted" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{value:g}</text>"
            )
        for size in self.sizes:
            x = self.x(size)
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
                f'<text class="muted" x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" '
                f'text-anchor="middle">{number(size)}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text class="muted" x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">'
            f"{html.escape(self.picture.tokens)} to learn from</text>"
        )
        return parts

    def _lines(self) -> list[str]:
        parts = []
        for line, colour in zip(self.picture.lines, _colours(), strict=False):
            places = [(self.x(p.tokens), self.y(p.perplexity), p) for p in line.points]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
            parts.append(f'<polyline class="line" points="{path}" stroke="{colour}"/>')
            for x, y, point in places:
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>'
                    f"{html.escape(line.name)}: {point.perplexity:,.2f} with "
                    f"{point.tokens:,} {html.escape(self.picture.tokens)}</title></circle>"
                )
        return parts

    def _labels(self) -> list[str]:
        """Each model's name beside the end of its line."""
        named = zip(self.picture.lines, _colours(), strict=False)
        parts, lowest = [], 0.0
        for line, colour in sorted(named, key=lambda pair: -pair[0].points[-1].perplexity):
            lowest = max(self.y(line.points[-1].perplexity) + 4, lowest + LABEL)
            parts.append(
                f'<text x="{WIDTH - RIGHT + 10}" y="{lowest:.1f}" style="fill: {colour}">'
                f"{html.escape(line.name)} {line.points[-1].perplexity:,.1f}</text>"
            )
        return parts


def marks(low: float, high: float) -> list[float]:
    """Round numbers between: of 1, 2 and 5 × 10ⁿ, and of finer steps where those are too few."""
    finer = tuple(n / 10 for n in range(10, 100))
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), finer):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [step * 10.0**n for n in decades for step in steps if low <= step * 10.0**n <= high]
        if len(found) >= 3:
            return found[:: -(-len(found) // 12)]
    return [low, high]


def _spread(low: float, high: float, factor: float) -> tuple[float, float]:
    return low / factor, high * factor


def _share(value: float, ends: tuple[float, float]) -> float:
    return math.log(value / ends[0]) / math.log(ends[1] / ends[0])


def _colours() -> list[str]:
    return [*COLOURS] * 4


def _row(line: Line, sizes: Sequence[int]) -> str:
    values = {point.tokens: f"{point.perplexity:,.2f}" for point in line.points}
    return "".join(f"<td>{values.get(size, '')}</td>" for size in sizes)


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark;
  --page: #fff; --ink: #1b1d21; --muted: #5a606a; --line: #dfe1e5; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #16181d; --ink: #e7e9ed; --muted: #a2a9b4; --line: #313640; }}
}}
body {{ margin: 0 auto; padding: 32px 24px 64px; max-width: 960px; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; }}
h1 {{ font-size: 1.4rem; margin: 0 0 20px; overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; }}
svg {{ display: block; width: 100%; min-width: 640px; height: auto; }}
svg > text.bold:first-of-type {{ display: none; }}
table {{ border-collapse: collapse; margin-top: 24px; }}
th, td {{ text-align: right; white-space: nowrap; padding: 4px 16px 4px 0;
  border-bottom: 1px solid var(--line); }}
th:first-child, td:first-child {{ text-align: left; }}
</style>
<h1>{title}</h1>
<div class="scroll">
{drawing}
</div>
<div class="scroll">
<table>
<thead><tr><th>{tokens} to learn from</th>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</html>
"""
