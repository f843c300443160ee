"""Curves of the report as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 380, 165, 54, 24, 24


def curve(title: str, steps: Sequence[float], series: dict[str, Sequence[float]]) -> str:
    """Plot positive values over steps on a logarithmic axis; empty text without a series of two points.

    Args:
        title: label for screen readers.
        steps: iterations.
        series: by name, each as long as ``steps``; the first solid, others dashed. Values that are not positive and
            finite are left out.
    """
    drawn = {}
    for name, values in series.items():
        points = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v) and v > 0]
        if len(points) > 1:
            drawn[name] = points
    if not drawn:
        return ""
    all_steps, values = zip(*(point for points in drawn.values() for point in points), strict=True)
    first, last = min(all_steps), max(all_steps)
    low, high = math.log10(min(values)), math.log10(max(values))
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05

    def place(step: float, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 8) * (step - first) / max(last - first, 1e-9)
        y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - math.log10(value)) / (high - low)
        return f"{x:.1f},{y:.1f}"

    label = f"{title}: from {values[0]:.3g} to {next(iter(drawn.values()))[-1][1]:.3g} in {last:g} iterations"
    parts = [f'<svg class="curve" role="img" aria-label="{escape(label)}" width="{_WIDTH}" height="{_HEIGHT}" '
             f'viewBox="0 0 {_WIDTH} {_HEIGHT}">']  # fmt: skip
    for value in (high, (low + high) / 2, low):
        y = float(place(first, 10**value).split(",")[1])
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**value:.2g}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{first:g}</text>')
    parts.append(f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">iteration {last:g}</text>')
    for number, (name, points) in enumerate(drawn.items()):
        style = ' class="second"' if number else ""
        path = " ".join(place(*point) for point in points)
        parts.append(f'<polyline{style} fill="none" stroke="currentColor" stroke-width="1.6" points="{path}">'
                     f"<title>{escape(name)}</title></polyline>")  # fmt: skip
    names = ", ".join(f"{escape(name)} ({'dashed' if i else 'solid'})" for i, name in enumerate(drawn))
    parts.append(f'<text x="{_LEFT}" y="12">{names}</text></svg>')
    return "".join(parts)
