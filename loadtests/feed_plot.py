"""Draw `loadtests/results/feed.json`: `python loadtests/feed_plot.py`, after `feed.py --record`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[0:0] = [str(HERE.parent)]

from loadtests.scale_plot import COLOURS, GREY, dress  # noqa: E402 - found from the line above

RESULTS, PICTURE = HERE / "results" / "feed.json", HERE / "results" / "feed.svg"
KINDS = ("no-op", "1 ms", "10 ms", "tail")
#: A row of panels: the key, and what it is. By the ideal, jobs that do nothing have no number.
PANELS = (
    ("jobs_per_s", "jobs a second"),
    ("by_ideal", "makespan by the ideal"),
    ("coordinator", "coordinator, share of a core"),
)


def draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gmpd"})
    figure, grid = pyplot.subplots(len(PANELS), len(KINDS), figsize=(13, 7.5))
    for (key, what), line in zip(PANELS, grid, strict=True):
        for kind, axes in zip(KINDS, line, strict=True):
            _panel(axes, [row for row in report["rows"] if row["kind"] == kind], key)
            axes.set_title(f"{kind}: {what}", fontsize=9, color=GREY)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _panel(axes: Any, rows: list[dict[str, Any]], key: str) -> None:
    rows = [row for row in rows if row[key] is not None]
    if not rows:
        axes.set_visible(False)
        return
    sizes = sorted({row["cores"] for row in rows})
    for cores, colour in zip(sizes, COLOURS, strict=False):
        of_size = [row for row in rows if row["cores"] == cores]
        xs, ys = [row["hosts"] for row in of_size], [row[key] for row in of_size]
        axes.plot(xs, ys, "o-", ms=3, lw=1.4, color=colour, label=f"{cores} cores each")
    axes.set_xscale("log", base=2)
    if key != "coordinator":
        axes.set_yscale("log")
    axes.set_xlabel("hosts")
    dress(axes)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text()), PICTURE)
