"""A picture of the bytes over a step: what they are, stacked, and where the peak is.

Knows moments of an estimate and how to draw; knows nothing of how they came about. One SVG without
anything from elsewhere, alone or in a page that also says the figures.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from fitune.ladder.figures import size
from fitune.memory.estimate import Estimate, Moment
from fitune.report.plots import axis
from fitune.sizes import GIB, MIB

SERIES: dict[str, tuple[str, ...]] = {
    "weights": ("weights",),
    "adapters": ("adapters",),
    "optimizer states": ("optimizer states", "averaged weights"),
    "kv cache": ("kv cache",),
    "gradients": ("gradients", "unreduced gradients"),
    "gathered layers, buffers": ("gathered layers", "communication buffers"),
    "activations": ("activations", "recomputed activations", "encoder output"),
    "logits and loss": ("logits and loss", "logits"),
    "temporaries, batch": ("temporaries", "batch"),
}
"""Bands of the picture, from the bottom, what stays longest first → terms of an estimate."""

COLOURS = ("#4c6ef5", "#7a92f7", "#0b8f83", "#2aa7c9", "#e08e0b", "#b58a5a", "#d6487e", "#8a56c9")
OTHER = "#9aa1ab"

WIDTH, HEIGHT = 1120, 560
LEFT, RIGHT, TOP, BOTTOM = 72, 236, 56, 40
NARROWEST = 66
"""Units of width of a phase, so that its name fits."""

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1b1d21; }
  .muted { fill: #5a606a; } .small { font-size: 12px; } .bold { font-weight: 600; }
  .grid { stroke: #1b1d21; stroke-opacity: .12; } .edge { stroke: #1b1d21; stroke-opacity: .3; }
  .band { fill: #1b1d21; fill-opacity: .04; } .peak { stroke: #1b1d21; stroke-dasharray: 2 3; }
  .dot { fill: #1b1d21; stroke: #fff; stroke-width: 2; }
  .budget { stroke: #b3261e; stroke-width: 1.5; stroke-dasharray: 7 4; }
  .budget-text { fill: #b3261e; } .page { fill: #fff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e7e9ed; } .muted { fill: #a2a9b4; } .page { fill: #16181d; }
    .grid, .edge, .peak { stroke: #e7e9ed; } .band { fill: #e7e9ed; }
    .dot { fill: #e7e9ed; stroke: #16181d; }
    .budget { stroke: #f59a92; } .budget-text { fill: #f59a92; }
  }
"""


@dataclass(frozen=True)
class Picture:
    """What is drawn.

    Attributes:
        title: the model and how it is used.
        subtitle: where the peak is.
        estimate: whose timeline is shown.
        budget: bytes, drawn as a line where it is in sight; None: no line.
    """

    title: str
    subtitle: str
    estimate: Estimate
    budget: int | None = None

    def svg(self) -> str:
        """A document of its own."""
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{self._drawn()}\n'

    def page(self) -> str:
        """An HTML page with the picture and the terms at the peak."""
        rows = "\n".join(
            f"<tr><td>{html.escape(name)}</td><td>{size(amount)}</td>"
            f"<td>{amount / self.estimate.peak_bytes:.1%}</td><td>{amount:,}</td></tr>"
            for name, amount in self.estimate.terms.items()
        )
        return PAGE.format(
            title=html.escape(self.title),
            subtitle=html.escape(self.subtitle),
            drawing=self._drawn(),
            rows=rows,
            total=f"{size(self.estimate.peak_bytes)}</td><td></td><td>{self.estimate.peak_bytes:,}",
        )

    def _drawn(self) -> str:
        return _Canvas(self).drawn()


class _Canvas:
    """Coordinates for one picture."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.moments = step_moments(picture.estimate)
        peak = picture.estimate.peak_bytes
        self.budget = picture.budget if (picture.budget or 0) <= 1.6 * peak else None
        self.unit, self.unit_name = (GIB, "GiB") if peak >= GIB else (MIB, "MiB")
        self.y_axis = axis(0.0, max(peak, self.budget or 0) * 1.04 / self.unit, ticks=6)
        self.bands = [
            (phase, len(list(group)))
            for phase, group in groupby(moment.phase for moment in self.moments)
        ]
        self.places = self._places()

    def _places(self) -> list[float]:
        """The x of each moment; layers, many of which are one moment, get more room."""
        widths, at = [], 0
        for _, count in self.bands:
            units = [3.0 if _is_layer(m) else 1.0 for m in self.moments[at : at + count]]
            least = NARROWEST / 9
            scale = max(1.0, least / sum(units))
            widths += [unit * scale for unit in units]
            at += count
        total, places, passed = sum(widths), [], 0.0
        for width in widths:
            places.append(LEFT + (WIDTH - LEFT - RIGHT) * (passed + width / 2) / total)
            passed += width
        return places

    def y(self, amount: float) -> float:
        inside = HEIGHT - TOP - BOTTOM
        return HEIGHT - BOTTOM - inside * amount / self.unit / self.y_axis.high

    def drawn(self) -> str:
        picture = self.picture
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-labelledby="title desc">',
            f'<title id="title">{html.escape(picture.title)}</title>',
            f'<desc id="desc">{html.escape(picture.subtitle)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<text class="bold" x="{LEFT}" y="20">{html.escape(picture.title)}</text>',
            *self._phases(),
            *self._grid(),
            *self._areas(),
            *self._budget_line(),
            *self._peak(),
            "</svg>",
        ]
        return "\n".join(parts)

    def _phases(self) -> list[str]:
        parts, at = [], 0
        for number, (name, count) in enumerate(self.bands):
            begin, end = self._edge(at), self._edge(at + count)
            if number % 2:
                parts.append(
                    f'<rect class="band" x="{begin:.1f}" y="{TOP - 18}" '
                    f'width="{end - begin:.1f}" height="{HEIGHT - TOP - BOTTOM + 18}"/>'
                )
            middle = (begin + end) / 2
            parts.append(
                f'<text class="small muted" x="{middle:.1f}" y="{TOP - 5}" '
                f'text-anchor="middle">{html.escape(name)}</text>'
            )
            at += count
        return parts

    def _edge(self, index: int) -> float:
        """Half way between a moment and the one before it."""
        if index == 0:
            return LEFT
        if index == len(self.places):
            return WIDTH - RIGHT
        return (self.places[index - 1] + self.places[index]) / 2

    def _grid(self) -> list[str]:
        parts = []
        for at, label in self.y_axis.ticks:
            y = self.y(at / 100 * self.y_axis.high * self.unit)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(
                f'<text class="small muted" x="{LEFT - 8}" y="{y + 4:.1f}" '
                f'text-anchor="end">{label}</text>'
            )
        parts.append(
            f'<text class="small muted" x="{LEFT - 8}" y="{TOP - 14}" text-anchor="end">'
            f"{self.unit_name}</text>"
        )
        names = [_short(m) for m in (self.moments[0], self.moments[-1])]
        for x, name, anchor in (
            (LEFT, names[0], "start"),
            (WIDTH - RIGHT, names[1], "end"),
        ):
            parts.append(
                f'<text class="small muted" x="{x}" y="{HEIGHT - BOTTOM + 18}" '
                f'text-anchor="{anchor}">{html.escape(name)}</text>'
            )
        back = " and back" if any(moment.phase == "backward" for moment in self.moments) else ""
        parts.append(
            f'<text class="small muted" x="{(LEFT + WIDTH - RIGHT) / 2}" '
            f'y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">through the model{back} →</text>'
        )
        return parts

    def _areas(self) -> list[str]:
        stacked = [series_of(moment) for moment in self.moments]
        shown = [name for name in [*SERIES, "other"] if any(s.get(name) for s in stacked)]
        at_peak = series_of(self.moments[self._highest()])
        # The ends of a moment, so that the first and the last fill their share of the width.
        x = [float(LEFT), *self.places, float(WIDTH - RIGHT)]
        below = [0.0] * len(x)
        parts, legend = [], []
        for name in shown:
            amounts = [float(s.get(name, 0)) for s in stacked]
            amounts = [amounts[0], *amounts, amounts[-1]]
            above = [low + amount for low, amount in zip(below, amounts, strict=True)]
            points = [*zip(x, above, strict=True), *reversed(list(zip(x, below, strict=True)))]
            path = " ".join(f"{px:.1f},{self.y(py):.1f}" for px, py in points)
            colour = dict(zip(SERIES, COLOURS, strict=False)).get(name, OTHER)
            parts.append(
                f'<polygon points="{path}" fill="{colour}" fill-opacity=".9">'
                f"<title>{name}: {size(at_peak.get(name, 0))} at the peak</title></polygon>"
            )
            legend.append((name, colour, at_peak.get(name, 0)))
            below = above
        return [*parts, *self._legend(legend)]

    def _legend(self, entries: Sequence[tuple[str, str, int]]) -> list[str]:
        left, right = WIDTH - RIGHT + 20, WIDTH - 12
        parts = [f'<text class="small muted" x="{left}" y="{TOP - 5}">at the peak</text>']
        for row, (name, colour, amount) in enumerate(reversed(entries)):
            y = TOP + 16 + 24 * row
            parts.append(
                f'<rect x="{left}" y="{y - 11}" width="12" height="12" rx="2" fill="{colour}"/>'
                f'<text class="small" x="{left + 18}" y="{y}">{name}</text>'
                f'<text class="small" x="{right}" y="{y}" text-anchor="end">{size(amount)}</text>'
            )
        y = TOP + 16 + 24 * len(entries)
        parts.append(
            f'<line class="edge" x1="{left}" x2="{right}" y1="{y - 16}" y2="{y - 16}"/>'
            f'<text class="bold" x="{left}" y="{y + 2}">together</text>'
            f'<text class="bold" x="{right}" y="{y + 2}" text-anchor="end">'
            f"{size(self.picture.estimate.peak_bytes)}</text>"
        )
        return parts

    def _highest(self) -> int:
        return max(range(len(self.moments)), key=lambda i: self.moments[i].bytes)

    def _peak(self) -> list[str]:
        index = self._highest()
        x, top = self.places[index], self.y(self.moments[index].bytes)
        return [
            f'<line class="peak" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{HEIGHT - BOTTOM}"/>',
            f'<circle class="dot" cx="{x:.1f}" cy="{top:.1f}" r="5"/>',
        ]

    def _budget_line(self) -> list[str]:
        if self.budget is None:
            return []
        y = self.y(self.budget)
        return [
            f'<line class="budget" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="small budget-text" x="{WIDTH - RIGHT - 6}" y="{y - 6:.1f}" '
            f'text-anchor="end">budget {size(self.budget)}</text>',
        ]


def step_moments(estimate: Estimate) -> tuple[Moment, ...]:
    """The moments of one step, and of the evaluation after it.

    Without the update that a trace begins with, to have optimizer states. Answering has no such;
    what it does outside any module is to choose the next token, at the end of a pass.
    """
    moments = estimate.timeline
    if any(moment.phase == "backward" for moment in moments):
        later = tuple(moment for moment in moments if moment.step > 0)
        return later or moments
    return tuple(sorted(moments, key=lambda moment: (moment.step, _short(moment) == "")))


def series_of(moment: Moment) -> Mapping[str, int]:
    """Bytes by the bands of the picture; they sum to the moment's."""
    owner = {term: name for name, terms in SERIES.items() for term in terms}
    sums: dict[str, int] = {}
    for term, amount in moment.terms.items():
        name = owner.get(term.partition(":")[0], "other")
        sums[name] = sums.get(name, 0) + amount
    return sums


def _is_layer(moment: Moment) -> bool:
    return not moment.place.endswith(" -1") and moment.place[-1:].isdigit()


def _short(moment: Moment) -> str:
    name = moment.place.removesuffix(" -1").strip()
    return name.rpartition(".")[2] if name else ""


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
body {{ margin: 0 auto; padding: 32px 24px 64px; max-width: 1120px; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; }}
h1 {{ font-size: 1.4rem; margin: 0 0 4px; overflow-wrap: anywhere; }}
p {{ color: var(--muted); margin: 0 0 20px; }}
.drawing {{ overflow-x: auto; }}
svg {{ display: block; width: 100%; min-width: 860px; height: auto; }}
svg > text.bold:first-of-type {{ display: none; }}
table {{ border-collapse: collapse; margin-top: 24px; }}
th, td {{ text-align: right; white-space: nowrap; padding: 4px 16px 4px 0;
  border-bottom: 1px solid var(--line); }}
th:first-child, td:first-child {{ text-align: left; }}
tfoot td {{ font-weight: 600; border-bottom: 0; }}
@media (max-width: 560px) {{
  body {{ padding: 20px 16px 40px; }}
  table {{ width: 100%; }}
  td:first-child {{ white-space: normal; overflow-wrap: anywhere; }}
  th:last-child, td:last-child {{ display: none; }}
}}
</style>
<h1>{title}</h1>
<p>{subtitle}</p>
<div class="drawing">
{drawing}
</div>
<table>
<thead><tr><th>at the peak</th><th></th><th>share</th><th>bytes</th></tr></thead>
<tbody>
{rows}
</tbody>
<tfoot><tr><td>together</td><td>{total}</td></tr></tfoot>
</table>
</html>
"""
