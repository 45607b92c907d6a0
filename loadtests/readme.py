"""Put the recorded results into README.md, between its markers: `python loadtests/readme.py`.

Numbers that are copied by hand are sooner or later those of another day; a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Report = dict[str, Any]


def runtime(report: Report) -> list[str]:
    """The medians of runtime_figures.py, each with gmpd's share of it."""
    names = ["gmpd", *(name for name in report["figures"]["switch"]["by"] if name != "gmpd")]
    heads = [f"{name} {report['versions'].get(name, '')}".strip() for name in names]
    lines = [_row(["", *heads]), _row(["---", *["---:"] * len(names)])]
    for figure, row in report["figures"].items():
        cells = [f"{figure}, {row['unit']}"]
        for name in names:
            seen = row["by"].get(name)
            ratio = f" (x{seen['gmpd_by_it']:.2f})" if seen and "gmpd_by_it" in seen else ""
            cells.append(f"{seen['median']:,.0f}{ratio}" if seen else "–")
        lines.append(_row(cells))
    lines += ["", "In brackets: gmpd's number by the peer's. What each row is:", ""]
    lines += [f"- *{figure}*: {row['what']};" for figure, row in report["figures"].items()]
    lines[-1] = lines[-1].rstrip(";") + "."
    return [*lines, "", _from(report)]


def handoff(report: Report) -> list[str]:
    """The percentiles of handoff_figures.py."""
    lines = [_row(["", "p50, ms", "p99, ms", "worst, ms", "of"]), _row(["---", *["---:"] * 4])]
    rows = [(f"hand-off, {kind}", row) for kind, row in report["handoff"].items()]
    rows += [(f"short job, {load}", row) for load, row in report["short_jobs"].items()]
    rows += [(f"behind sleepers, {name}", row) for name, row in report["behind"].items()]
    for name, row in rows:
        numbers = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms")]
        lines.append(_row([name, *numbers, f"{row['count']:,}"]))
    return [*lines, "", _from(report)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _from(report: Report) -> str:
    m = report["machine"]
    return (
        f"{report['rounds']} rounds on {m['cores']} cores of “{m['cpu']}”, "
        f"Python {m['python']}, Linux {m['kernel']}; load before: {m['load_before']:.1f}."
    )


TABLES: dict[str, Callable[[Report], list[str]]] = {"runtime": runtime, "handoff": handoff}


def filled(text: str) -> str:
    """The README with every table as the results have it."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        report = json.loads((HERE / "results" / f"{name}.json").read_text())
        text = head + begin + "\n".join(make(report)) + "\n" + end + tail
    return text


if __name__ == "__main__":
    readme = HERE / "README.md"
    readme.write_text(filled(readme.read_text()))
