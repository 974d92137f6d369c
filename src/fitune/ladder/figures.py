"""How figures are written for people: durations, bytes, counts, scores, p-values.

Knows numbers only. One place, so that the terminal, the report and the recommendation agree.
"""

from __future__ import annotations


def duration(seconds: float) -> str:
    """0.0004 → ``<1 ms``, 0.25 → ``250 ms``, 3.14 → ``3.1 s``, 252 → ``4 min 12 s``,
    3780 → ``1 h 03 min``."""
    if seconds <= 0:
        return "0 s"
    if seconds < 0.0005:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes in binary units, three digits: 1,288,490,189 → ``1.20 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 999.5:
            return f"{_three_digits(count) if unit != 'B' else round(count)} {unit}"
        count /= 1024
    return f"{_three_digits(count)} TiB"


def number(count: float) -> str:
    """A count, short from ten thousand on: 9,999 → ``9,999``, 22,713,216 → ``22.7 M``."""
    if count < 9_999.5:
        return f"{round(count):,}"
    for unit in ("k", "M", "G"):
        count /= 1000
        if count < 999.5:
            return f"{_three_digits(count)} {unit}"
    return f"{_three_digits(count / 1000)} T"


def amount(value: float) -> str:
    """Hours or money, never as a power of ten: 0 → ``0``, 0.00003 → ``<0.0001``, 0.0158 →
    ``0.0158``, 1234.5 → ``1,234.50``."""
    if value <= 0:
        return "0"
    if value < 0.00005:
        return "<0.0001"
    return f"{value:,.2f}" if value >= 1 else f"{value:.4f}"


def score(value: float) -> str:
    """A metric's value with three decimals and a true minus sign."""
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


def difference(value: float) -> str:
    """A difference of a metric, always with its sign; what rounds to zero has none."""
    text = score(abs(value))
    return text if text == "0.000" else f"{'+' if value > 0 else '−'}{text}"


def p_value(value: float) -> str:
    """``p < 0.001``, ``p = 0.012``, ``p = 0.43``."""
    if value < 0.001:
        return "p < 0.001"
    # near the level a digit more: a reader compares it with 0.05, on whichever side it lies
    digits = 4 if abs(value - 0.05) < 0.0005 else 3 if value < 0.1 else 2
    return f"p = {value:.{digits}f}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
