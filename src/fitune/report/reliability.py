"""A picture of how far confidence is to be believed: accuracy against confidence.

Knows bins of a calibration and how to draw; knows nothing of rungs or pages. One SVG without
anything from elsewhere.
"""

from __future__ import annotations

from fitune.evaluation.calibration import Bin, Calibration

LEFT, TOP, SIDE = 52, 12, 300
"""Both axes are of one length, so that the diagonal is one."""

SHARES = 40
"""Height of the bars below, which say how many rows fall into each bin."""

WIDTH, HEIGHT = LEFT + SIDE + 12, TOP + SIDE + SHARES + 56

STYLE = """
  .reliability text {
    font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1b1d21;
  }
  .reliability .muted { fill: #5a606a; }
  .reliability .grid { stroke: #1b1d21; stroke-opacity: .12; }
  .reliability .diagonal { stroke: #5a606a; stroke-dasharray: 4 4; }
  .reliability .right { fill: #1f57c3; }
  .reliability .over { fill: #b3261e; fill-opacity: .35; }
  .reliability .under { fill: #16714a; fill-opacity: .8; }
  .reliability .rows { fill: #5a606a; fill-opacity: .5; }
  @media (prefers-color-scheme: dark) {
    .reliability text { fill: #e7e9ed; } .reliability .muted { fill: #a2a9b4; }
    .reliability .grid { stroke: #e7e9ed; } .reliability .diagonal { stroke: #a2a9b4; }
    .reliability .right { fill: #8ab4f8; } .reliability .over { fill: #f59a92; }
    .reliability .under { fill: #6ccf98; } .reliability .rows { fill: #a2a9b4; }
  }
"""
"""Each rule names its picture: a page's other pictures are not to be dressed by it."""


def reliability_plot(calibration: Calibration) -> str:
    """A reliability diagram (Guo et al. 2017, figure 1) as SVG.

    A bar's height is the share of right answers among those of about that confidence; what lacks
    to the mean confidence is drawn in red (too sure), what is beyond it in green (not sure
    enough). Below, the share of rows in each bin.
    """
    sentence = (
        f"Of {calibration.rows:,} answers, confidence and the share of right ones are "
        f"{calibration.ece:.3f} apart on average."
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{sentence}" class="reliability">',
        f"<style>{STYLE}</style>",
        *_axes(),
        *(line for found in calibration.bins if found.rows for line in _bin(found, calibration)),
        f'<line class="diagonal" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>',
        f'<text x="{LEFT + SIDE / 2:g}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"confidence (ECE {calibration.ece:.3f})</text>",
        "</svg>",
    ]
    return "\n".join(parts)


def _x(share: float) -> float:
    return round(LEFT + SIDE * share, 2)


def _y(share: float) -> float:
    return round(TOP + SIDE * (1 - share), 2)


def _axes() -> list[str]:
    lines = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        lines += [
            f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(tick)}" y2="{_y(tick)}"/>',
            f'<text class="muted" x="{LEFT - 6}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}'
            "</text>",
            f'<text class="muted" x="{_x(tick)}" y="{HEIGHT - 28}" text-anchor="middle">{tick:g}'
            "</text>",
        ]
    middle = f"{TOP + SIDE / 2:g}"
    turned = f'transform="rotate(-90 14 {middle})"'
    title = f'<text x="14" y="{middle}" text-anchor="middle" {turned}>share of right answers</text>'
    return [*lines, title]


def _bin(found: Bin, calibration: Calibration) -> list[str]:
    """The bar of one bin, the gap to its mean confidence, and how many rows it holds."""
    gap = "over" if found.confidence > found.accuracy else "under"
    tip = (
        f"<title>confidence {found.low:.2f} to {found.high:.2f}: {found.accuracy:.1%} of "
        f"{found.rows:,} right, {found.confidence:.1%} expected</title>"
    )
    share = SHARES * found.rows / max(b.rows for b in calibration.bins)
    bottom = TOP + SIDE + 8
    return [
        f"<g>{tip}",
        _bar("right", found, _y(found.accuracy), _y(0)),
        _bar(gap, found, *sorted((_y(found.accuracy), _y(found.confidence)))),
        _bar("rows", found, bottom, round(bottom + share, 2)),
        "</g>",
    ]


def _bar(name: str, found: Bin, top: float, bottom: float) -> str:
    left = _x(found.low) + 1
    width, height = round(_x(found.high) - left - 1, 2), round(bottom - top, 2)
    return f'<rect class="{name}" x="{left:g}" y="{top}" width="{width}" height="{height}"/>'
