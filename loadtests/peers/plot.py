"""The picture of the peers' table: `python loadtests/peers/plot.py` (pip install '.[load]').

A field for each peer and workload: how many times as good as gmpd it is, on a scale of powers of
ten. Fields have their own colours and all other text is grey, so that it can be read on a light and
on a dark page.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from loadtests.peers.tables import where_and_when  # noqa: E402 - found from the line above
from loadtests.peers.workloads import ALL, Workload  # noqa: E402

RESULTS = ROOT / "loadtests" / "results" / "peers.json"
PICTURE = ROOT / "pictures" / "peers.svg"
GREY = "#808890"
#: A hundred times as good, or as bad, has the full colour.
DECADES = 2.0


def times_as_good(cell: dict[str, Any], ours: dict[str, Any], row: Workload) -> float | None:
    """The peer's figure by gmpd's, or the inverse where less is better; None if one has none."""
    if "median" not in cell or "median" not in ours:
        return None
    theirs, mine = cell["median"], ours["median"]
    if not row.more_is_better:
        theirs, mine = mine, theirs
    if mine <= 0 or theirs < 0:
        return None
    return float(theirs / mine)


def words(ratio: float) -> str:
    """Two digits."""
    if ratio >= 10:
        return f"{ratio:,.0f}"
    if ratio >= 0.095:
        return f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2f}".lstrip("0")
    if ratio == 0:
        return "0"
    if ratio >= 0.001:
        return f"1/{1 / ratio:.0f}"
    return f"1/{1 / ratio / 1000:.0f}k"


def draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    mpl.rcParams.update(
        {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "gmpd"}
    )
    colours = LinearSegmentedColormap.from_list("beside", ["#c2622d", "#d9d4c8", "#2f7fb8"])
    rows = [ALL[key] for key in ALL if key in report["cells"] and key != "idle"]
    names = [name for name in report["peers"] if name != "gmpd"]
    figure, axes = pyplot.subplots(figsize=(0.62 * len(rows) + 2.0, 0.34 * len(names) + 2.2))
    for x, row in enumerate(rows):
        ours = report["cells"][row.key].get("gmpd", {})
        for y, name in enumerate(names):
            ratio = times_as_good(report["cells"][row.key].get(name, {}), ours, row)
            if ratio is None:
                axes.text(x, y, "no", ha="center", va="center", color=GREY, fontsize=7)
                continue
            decades = math.log10(max(ratio, 1e-9))
            at = min(1.0, max(0.0, 0.5 + decades / DECADES / 2))
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colours(at), lw=0))
            ink = "white" if abs(at - 0.5) > 0.3 else "#202020"
            axes.text(x, y, words(ratio), ha="center", va="center", color=ink, fontsize=7)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(rows)), [row.title for row in rows], rotation=40, ha="left")
    axes.set_yticks(range(len(names)), [report["peers"][name]["title"] for name in names])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=8, colors=GREY)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(
        "times as good as gmpd: blue is better, orange is worse; "
        + where_and_when(report), fontsize=7, color=GREY, loc="left",
    )  # fmt: skip
    figure.savefig(
        path, transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
    )
    pyplot.close(figure)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text()), PICTURE)
