"""The same as a picture: how many times what we take everyone else takes, on a logarithmic scale, as SVG."""

from __future__ import annotations

import math
from html import escape

from benchmarks.report import LIMIT, OURS, Report

__all__ = ["svg"]

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#72b7b2", "#e45756")
WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 960, 330, 60, 70, 9, 12


def svg(report: Report) -> str:
    """One group of bars for each workload that another library can do: its time as a multiple of ours on asyncio."""
    groups: list[tuple[str, list[tuple[str, float]]]] = []
    names: list[str] = []
    for row in report.rows():
        ours = row.of(OURS, "asyncio")
        mine = None if ours is None else ours.median
        if not mine or row.measure != "time":
            continue
        bars = [
            (contestant.name, median / mine)
            for contestant, reading in row.readings.items()
            if contestant.name not in {OURS, LIMIT} and (median := reading.median)
        ]
        if bars:
            groups.append((row.workload.title, bars))
            names += [name for name, _ in bars if name not in names]
    ratios = [ratio for _, bars in groups for _, ratio in bars] or [1.0]
    low, high = min(0.0, math.floor(math.log10(min(ratios)))), max(1.0, math.ceil(math.log10(max(ratios))))
    span = WIDTH - LEFT - RIGHT

    def x(ratio: float) -> float:
        return LEFT + (math.log10(ratio) - low) / (high - low) * span

    parts: list[str] = []
    y = TOP
    for title, bars in groups:
        middle = y + len(bars) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.0f}" text-anchor="end">{escape(title)}</text>')
        for name, ratio in bars:
            colour = COLOURS[names.index(name) % len(COLOURS)]
            begin, end = sorted((x(1.0), x(ratio)))
            parts.append(
                f'<rect x="{begin:.1f}" y="{y}" width="{max(end - begin, 1):.1f}" height="{BAR - 2}" fill="{colour}">'
                f"<title>{escape(name)}: {ratio:.3g} times ours</title></rect>"
            )
            parts.append(f'<text x="{end + 3:.1f}" y="{y + BAR - 2}" class="n">{ratio:.3g}</text>')
            y += BAR
        y += GAP
    lines = [
        f'<line x1="{x(10**power):.1f}" x2="{x(10**power):.1f}" y1="{TOP - 8}" y2="{y}" '
        f'class="{"grid" if power else "one"}"/>'
        f'<text x="{x(10**power):.1f}" y="{TOP - 12}" text-anchor="middle">{10**power:g}x</text>'
        for power in range(int(low), int(high) + 1)
    ]
    legend = [
        f'<rect x="{LEFT + i * 105}" y="14" width="9" height="9" fill="{COLOURS[i % len(COLOURS)]}"/>'
        f'<text x="{LEFT + i * 105 + 13}" y="22">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    style = (
        "text{font:11px sans-serif;fill:#333}.n{font-size:8px}.grid{stroke:#ddd}.one{stroke:#333}"
        "rect.page{fill:#fff}text.title{font-weight:bold}"
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10}" width="{WIDTH}" height="{y + 10}">',
            f"<style>{style}</style>",
            f'<rect class="page" width="{WIDTH}" height="{y + 10}"/>',
            '<text class="title" x="10" y="22">Time, as a multiple of actorflow&#8217;s</text>',
            *legend,
            *lines,
            *parts,
            "</svg>",
            "",
        )
    )
