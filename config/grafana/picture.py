"""Draws panels of the dashboard from a running Prometheus, without Grafana, as one SVG.

    python config/grafana/picture.py http://127.0.0.1:9090 --minutes 3 \\
        "Jobs finished, by outcome" "Picks, by source" > picture.svg

The queries are the dashboard's own. For documents and for machines where no Grafana is; the real
dashboard can do more.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

BOARD: Final = Path(__file__).parent / "dashboards" / "gmpd-overview.json"

WIDTH: Final = 460
HEIGHT: Final = 240
#: Room for the axis' numbers, the title, the times and the legend.
LEFT, TOP, RIGHT, BOTTOM = 54, 34, 12, 52
#: Points across: more than can be told apart in a picture of this width.
POINTS: Final = 160

#: Okabe and Ito's colours: told apart by colour-blind readers too, on white and on black.
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")

STYLE: Final = """
text{font:11px system-ui,sans-serif;fill:#333}.title{font-size:13px;font-weight:600}
.grid{stroke:#8884;stroke-width:1}polyline{stroke-width:1.5}.frame{fill:#8881}
@media(prefers-color-scheme:dark){text{fill:#ccc}}
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a legend and a value (NaN where there is none) for every point in time."""

    legend: str
    values: Sequence[float]


class Source:
    """A Prometheus server, asked for a stretch of time."""

    def __init__(self, url: str, minutes: float) -> None:
        self._url = url.rstrip("/")
        self.end = time.time()
        self.start = self.end - minutes * 60
        self.step = (self.end - self.start) / POINTS

    def series(self, expression: str, legend: str) -> list[Series]:
        """The server's answer: every series on the same points in time."""
        window = f"{max(10, math.ceil(self.step * 4))}s"
        for variable in ("$__rate_interval", "$__range"):
            expression = expression.replace(variable, window)
        asked = {
            "query": expression.replace("$instance", ".*"),
            "start": f"{self.start:.3f}",
            "end": f"{self.end:.3f}",
            "step": f"{self.step:.3f}",
        }
        url = f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the user's own
            found = json.load(response)["data"]["result"]
        return [self._one(entry, legend) for entry in found]

    def _one(self, entry: dict[str, Any], legend: str) -> Series:
        for label, value in entry["metric"].items():
            legend = legend.replace("{{" + label + "}}", value)
        values = [math.nan] * (POINTS + 1)
        for at, value in entry["values"]:
            index = round((at - self.start) / self.step)
            if 0 <= index <= POINTS:
                values[index] = float(value)
        return Series(legend, values)


def draw(panel: dict[str, Any], source: Source, x: int, y: int) -> str:
    """One panel at (x, y)."""
    found = [
        series
        for target in panel["targets"]
        for series in source.series(target["expr"], target["legendFormat"])
    ]
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    if panel["type"] == "heatmap":
        body, top, legends = _heat(found), "", []
    else:
        custom = panel["fieldConfig"]["defaults"].get("custom", {})
        stacking = custom.get("stacking", {}).get("mode", "none")
        unit = "percentunit" if stacking == "percent" else unit
        # A series of zeros is left out: its legend would only take room.
        found = [series for series in found if any(v > 0 for v in series.values)] or found
        body, top = _lines(found, stacking, unit)
        legends = [series.legend for series in found]
    return (
        f'<g transform="translate({x},{y})"><rect class="frame" width="{WIDTH - 10}" '
        f'height="{HEIGHT - 10}" rx="6"/><text class="title" x="12" y="20">'
        f"{escape(panel['title'])}</text>{top}{body}{_times(source)}{_legend(legends)}</g>"
    )


def _across(index: int) -> float:
    return LEFT + (WIDTH - 10 - LEFT - RIGHT) * index / POINTS


def _up(share: float) -> float:
    return HEIGHT - 10 - BOTTOM - (HEIGHT - 10 - TOP - BOTTOM) * share


def _lines(found: Sequence[Series], stacking: str, unit: str) -> tuple[str, str]:
    layers = [list(series.values) for series in found]
    if stacking != "none":
        layers = _stacked(layers, percent=stacking == "percent")
    finite = [value for layer in layers for value in layer if math.isfinite(value)]
    most = _round_up(max(finite, default=1) or 1)
    parts = []
    # The lowest layer last, over the ones that it is part of.
    for number in reversed(range(len(layers))):
        colour = COLOURS[number % len(COLOURS)]
        for first, run in _runs(layers[number]):
            points = " ".join(
                f"{_across(first + i):.1f},{_up(max(0, value) / most):.1f}"
                for i, value in enumerate(run)
            )
            if stacking == "none":
                parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
            else:
                ends = f"{_across(first + len(run) - 1):.1f},{_up(0)} {_across(first):.1f},{_up(0)}"
                parts.append(f'<polygon points="{points} {ends}" fill="{colour}"/>')
    axis = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10 - RIGHT}" y1="{_up(share):.1f}" '
        f'y2="{_up(share):.1f}"/><text x="{LEFT - 6}" y="{_up(share) + 4:.1f}" '
        f'text-anchor="end">{shown(most * share, unit)}</text>'
        for share in (0, 0.5, 1)
    )
    return "".join(parts), axis


def _stacked(layers: list[list[float]], *, percent: bool) -> list[list[float]]:
    sums = [0.0] * (POINTS + 1)
    stacked = []
    for layer in layers:
        known = [any(math.isfinite(each[i]) for each in layers) for i in range(POINTS + 1)]
        sums = [low + (v if math.isfinite(v) else 0) for low, v in zip(sums, layer, strict=True)]
        stacked.append([s if k else math.nan for s, k in zip(sums, known, strict=True)])
    if percent:
        return [[v / s if s else 0 for v, s in zip(each, sums, strict=True)] for each in stacked]
    return stacked


def _runs(values: Sequence[float]) -> list[tuple[int, list[float]]]:
    runs: list[tuple[int, list[float]]] = []
    for index, value in enumerate(values):
        if not math.isfinite(value):
            continue
        if runs and runs[-1][0] + len(runs[-1][1]) == index:
            runs[-1][1].append(value)
        else:
            runs.append((index, [value]))
    return runs


def _heat(found: Sequence[Series]) -> str:
    rows = sorted(found, key=lambda series: float(series.legend))
    cells: list[str] = []
    below = [0.0] * (POINTS + 1)
    counts: list[list[float]] = []
    for row in rows:
        values = [v if math.isfinite(v) else 0.0 for v in row.values]
        counts.append([max(0.0, v - b) for v, b in zip(values, below, strict=True)])
        below = values
    most = max((c for buckets in counts for c in buckets), default=1) or 1
    height = (HEIGHT - 10 - TOP - BOTTOM) / max(1, len(rows))
    for number, buckets in enumerate(counts):
        bottom = HEIGHT - 10 - BOTTOM - height * number
        if number % 3 == 0 and math.isfinite(float(rows[number].legend)):
            cells.append(
                f'<text x="{LEFT - 6}" y="{bottom - height + 8:.1f}" text-anchor="end">'
                f"{shown(float(rows[number].legend), 's')}</text>"
            )
        for index, count in enumerate(buckets):
            if count:
                # A root, so that a bucket of a hundredth is still seen.
                cells.append(
                    f'<rect x="{_across(index):.1f}" y="{bottom - height:.1f}" fill="#D55E00" '
                    f'width="{_across(1) - _across(0) + 0.3:.1f}" height="{height:.1f}" '
                    f'opacity="{(count / most) ** 0.4:.2f}"/>'
                )
    return "".join(cells)


def _times(source: Source) -> str:
    marks = []
    for share in (0, 0.5, 1):
        at = time.strftime(
            "%H:%M:%S", time.gmtime(source.start + (source.end - source.start) * share)
        )
        anchor = {0: "start", 0.5: "middle", 1: "end"}[share]
        x = _across(round(POINTS * share))
        y = HEIGHT - 10 - BOTTOM + 16
        marks.append(f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{at}</text>')
    return "".join(marks)


def _legend(legends: Sequence[str]) -> str:
    parts, x = [], LEFT
    for number, legend in enumerate(legends[: len(COLOURS)]):
        y = HEIGHT - 10 - 14
        parts.append(f'<rect x="{x}" y="{y - 8}" width="9" height="9" fill="{COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 13}" y="{y}">{escape(legend)}</text>')
        x += 24 + 6 * len(legend)
    return "".join(parts)


def _round_up(value: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(value))
    return next(
        step * magnitude for step in (1, 2, 2.5, 5, 10) if step * magnitude >= value * 0.999
    )


def shown(value: float, unit: str) -> str:
    """A number as an axis says it."""
    if value == 0:
        return "0"
    if unit == "percentunit":
        return f"{value * 100:g} %"
    if unit == "s":
        for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= scale * 0.9995:
                return f"{value / scale:.3g} {name}"
    for scale, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{name}"
    return f"{value:.3g}"


def picture(source: Source, titles: Sequence[str]) -> str:
    """The panels with these titles, two in a row."""
    board = json.loads(BOARD.read_text())
    panels = {panel["title"]: panel for panel in board["panels"] if panel["type"] != "row"}
    unknown = [title for title in titles if title not in panels]
    if unknown:
        raise SystemExit(f"no panel has the title {unknown[0]!r}; there are: {', '.join(panels)}")
    drawn = [
        draw(panels[title], source, 5 + i % 2 * WIDTH, 5 + i // 2 * HEIGHT)
        for i, title in enumerate(titles)
    ]
    width = WIDTH * min(2, len(titles))
    height = HEIGHT * ((len(titles) + 1) // 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{STYLE}</style>{"".join(drawn)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="panels of the dashboard as one SVG")
    parser.add_argument("prometheus", help="as in http://127.0.0.1:9090")
    parser.add_argument("titles", nargs="+", help="of panels")
    parser.add_argument("--minutes", type=float, default=5, help="how far back")
    arguments = parser.parse_args()
    sys.stdout.write(picture(Source(arguments.prometheus, arguments.minutes), arguments.titles))


if __name__ == "__main__":
    main()
