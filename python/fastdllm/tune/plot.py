"""Draws quality against passes as an SVG, by hand: the runtime has no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from fastdllm.tune.tuning import CAREFUL, Outcome, pareto_front, recommended

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 86, 574, 56, 380  # the frame
LEGEND = RIGHT + 24
COLOURS = {  # colours for the colour-blind (Okabe and Ito)
    CAREFUL: "#333333",
    "threshold": "#0072b2",
    "factor": "#d55e00",
    "frechet": "#009e73",
    "entropy_bound": "#cc79a7",
    "steps_per_block": "#e69f00",
}
# Outlines around (0, 0), by cache.
SHAPES = {
    "none": "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z",
    "prefix": "M0 -5.5L5.5 4.5L-5.5 4.5Z",
    "dual": "M-4.5 -4.5H4.5V4.5H-4.5Z",
    "auto": "M0 -6L6 0L0 6L-6 0Z",
}
STYLE = """
text { font: 12px sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: bold }
.grid { stroke: #e4e4e4 }
.frame { stroke: #666; fill: none }
.front { stroke: #999; fill: none; stroke-dasharray: 5 4 }
.point { stroke: #fff; stroke-width: 1; fill-opacity: .75 }
.chosen { stroke: #c00; stroke-width: 2; fill: none }
"""


def draw(outcomes: Sequence[Outcome], *, title: str, tolerance: float) -> str:
    """Return the SVG: a point per outcome, the Pareto front, a ring around the recommended one."""
    passes = [one.passes_per_answer for one in outcomes]
    quality = [100 * one.quality for one in outcomes]
    x_low, x_high = min(passes) / 1.15, max(passes) * 1.15
    step = _step(max(quality) - min(quality))
    y_low = math.floor(min(quality) / step - 0.3) * step
    y_high = min(math.ceil(max(quality) / step + 0.3) * step, 100 + 0.3 * step)

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * math.log(value / x_low) / math.log(x_high / x_low)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - y_low) / (y_high - y_low)

    def at(one: Outcome) -> tuple[float, float]:
        return x(one.passes_per_answer), y(100 * one.quality)

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' height="{HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, TOP - 22, title, 'class="title"'),
    ]
    for value in _ticks_of_passes(x_low, x_high):
        drawn.append(f'<path class="grid" d="M{x(value):.1f} {TOP}V{BOTTOM}"/>')
        drawn.append(_text(x(value), BOTTOM + 18, f"{value:g}", 'text-anchor="middle"'))
    for number in range(math.floor((y_high - y_low) / step + 1e-9) + 1):
        value = y_low + number * step
        drawn.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{RIGHT}"/>')
        drawn.append(_text(LEFT - 8, y(value) + 4, f"{value:.4g} %", 'text-anchor="end"'))
    drawn.append(
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/>'
    )
    middle = 'text-anchor="middle"'
    drawn.append(_text((LEFT + RIGHT) / 2, BOTTOM + 42, "passes per answer", middle))
    turned = f'{middle} transform="rotate(-90 22 {(TOP + BOTTOM) / 2:g})"'
    drawn.append(_text(22, (TOP + BOTTOM) / 2, "quality", turned))

    corners = [f"{one_x:.1f} {one_y:.1f}" for one_x, one_y in map(at, pareto_front(outcomes))]
    drawn.append(f'<path class="front" d="M{"L".join(corners)}"/>')
    for one in outcomes:
        told = (
            f"{one.setting.name}: {100 * one.quality:.1f} %, {one.passes_per_answer:.2f} passes,"
            f" {one.tokens_per_forward:.1f} tokens per forward,"
            f" {one.tokens_per_second:.0f} tokens/s"
        )
        drawn.append(_point(*at(one), one.setting.policy, one.setting.cache, told))
    chosen = recommended(outcomes, tolerance)
    ring_x, ring_y = at(chosen)
    drawn.append(f'<circle class="chosen" cx="{ring_x:.1f}" cy="{ring_y:.1f}" r="9"/>')
    drawn += _legend(outcomes, chosen)
    return "\n".join([*drawn, "</svg>", ""])


def _legend(outcomes: Sequence[Outcome], chosen: Outcome) -> list[str]:
    drawn: list[str] = []
    row = TOP + 10

    def add(symbol: str, text: str, gap: int = 20) -> None:
        nonlocal row
        drawn.extend([symbol, _text(LEGEND + 14, row + 4, text)])
        row += gap

    policies = list(dict.fromkeys(one.setting.policy for one in outcomes))
    caches = list(dict.fromkeys(one.setting.cache for one in outcomes))
    for policy in policies:
        add(_point(LEGEND, row, policy, "none"), policy, 20 + 12 * (policy == policies[-1]))
    for cache in caches:
        add(_point(LEGEND, row, CAREFUL, cache), f"cache {cache}", 20 + 12 * (cache == caches[-1]))
    add(f'<path class="front" d="M{LEGEND - 8} {row}h16"/>', "Pareto front")
    add(f'<circle class="chosen" cx="{LEGEND}" cy="{row}" r="7"/>', "recommended:", 16)
    add("", chosen.setting.name)
    return [line for line in drawn if line]


def _point(x: float, y: float, policy: str, cache: str, told: str = "") -> str:
    shape = f'class="point" fill="{COLOURS[policy]}" d="{SHAPES[cache]}"'
    title = f"<title>{escape(told)}</title>" if told else ""
    return f'<path {shape} transform="translate({x:.1f} {y:.1f})">{title}</path>'


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _step(span: float) -> float:
    """Return a round distance that parts a span of percent points into eight at most."""
    return next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10) if span / step <= 7), 20)


def _ticks_of_passes(low: float, high: float) -> list[float]:
    """Return round numbers in a range for a logarithmic axis: at least two."""
    if high / low >= 4:
        exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
        return [2.0**exponent for exponent in exponents]
    size = 10 ** math.floor(math.log10(high - low))
    step = next(size * part for part in (0.1, 0.2, 0.5, 1, 2) if (high - low) / (size * part) <= 6)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
