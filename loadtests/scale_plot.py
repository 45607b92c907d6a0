"""The picture of scale.py's figures: `python loadtests/scale_plot.py` (pip install '.[load]').

Lines have colours that can be told apart on a light and on a dark page; all text is grey.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PICTURE = HERE / "results" / "scale.json", HERE / "results" / "scale.svg"
GREY = "#808890"
COLOURS = ("#2f7fb8", "#c2622d", "#4f9a4f", "#9a6fb0")
WHO = ("client", "coordinator", "workers")

#: A panel: the part, its title, the key of x, what x is, and the keys of y with their names.
Panel = tuple[str, str, str, str, dict[str, str]]
PANELS: tuple[Panel, ...] = (
    ("jobs", "CPU of a job, us", "jobs", "jobs", {f"{who}_us": who for who in WHO}),
    ("workers", "CPU of a job, us", "workers", "workers", {f"{who}_us": who for who in WHO}),
    (
        "workers", "CPU at rest, us in a second", "workers", "workers",
        {"idle_coordinator_us_per_s": "coordinator", "idle_worker_us_per_s": "each worker"},
    ),
    (
        "gs", "us for each G", "gs", "Gs on one P",
        {"spawn_us": "spawn and park", "wake_us": "wake", "worker_us": "CPU until parked"},
    ),
    (
        "gs", "a short job beside them, ms", "gs", "Gs on one P",
        {"short_job_p50_ms": "p50", "short_job_p99_ms": "p99"},
    ),
    ("clients", "CPU of a job, us", "clients", "clients", {f"{who}_us": who for who in WHO}),
    (
        "clients", "ten jobs in flight each, ms", "clients", "clients",
        {"p50_ms": "p50", "p99_ms": "p99"},
    ),
    (
        "payloads", "MB a second, there and back", "bytes", "bytes of the argument",
        {"bytes_mb_per_s": "bytes", "numpy_mb_per_s": "NumPy"},
    ),
)  # fmt: skip


def draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gmpd"})
    panels = [panel for panel in PANELS if report.get(panel[0])]
    figure, grid = pyplot.subplots(2, 4, figsize=(13, 5.6))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (part, title, x, what, lines) in zip(grid.flat, panels, strict=False):
        rows = report[part]
        for (key, name), colour in zip(lines.items(), COLOURS, strict=False):
            ys = [max(row[key], 1e-3) for row in rows]
            axes.plot([row[x] for row in rows], ys, "o-", ms=3, lw=1.4, color=colour, label=name)
        axes.set(xscale="log", yscale="log", xlabel=what)
        axes.set_title(title, fontsize=9, color=GREY)
        dress(axes)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def dress(axes: Any) -> None:
    """Give a panel with lines the look of all: grey, thin, without a background."""
    axes.xaxis.label.set(color=GREY, fontsize=8)
    axes.tick_params(which="both", colors=GREY, labelsize=7)
    axes.grid(color=GREY, alpha=0.25, lw=0.5)
    axes.patch.set_alpha(0.0)
    for spine in axes.spines.values():
        spine.set(color=GREY, linewidth=0.5)
    axes.legend(fontsize=7, frameon=False, labelcolor=GREY)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text()), PICTURE)
    print(PICTURE.name, file=sys.stderr)
