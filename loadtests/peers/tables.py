"""The tables of the peers, from what run.py recorded: the full one, and the README's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.peers.workloads import ALL, Workload

Report = dict[str, Any]

#: The README's columns and rows, and when the row's peer is the better choice.
BRIEF = {
    "noop": "no-ops, jobs/s",
    "mapped": "mapped, items/s",
    "round_trip": "round trip, ms",
    "naps_1s": "1 s waits, jobs/s",
    "behind": "behind 100 blocking, ms",
    "metg": "METG, ms",
    "killed": "a worker killed: done",
    "cold": "cold start, s",
}
CHOICE = {
    "gmpd": "–",
    "processpool": "all jobs compute, take a similar time, and come from one program",
    "pool": "as above, mapped in chunks",
    "joblib": "loops over arrays; results cached on disk; scikit-learn",
    "dask": "a computation on a collection larger than memory, or on several machines",
    "ray": "several machines or GPUs, actors, a shared object store",
    "celery": "several machines share the work, by a broker",
    "dramatiq": "as Celery, with less to configure",
    "taskiq": "as Celery, for asyncio",
    "asyncio": "all jobs wait, and one core is enough",
}
#: How good a value is beside gmpd's is known only of those that grow smoothly.
THOUSANDTH = {"round_trip", "metg"}


def full(report: Report) -> list[str]:
    """Every workload and every peer, rates first; then what each is, and the settings."""
    marks: dict[str, int] = {}
    rows = [ALL[key] for key in ALL if key in report["cells"]]
    lines: list[str] = []
    for title, chosen in (
        ("More is better:", [each for each in rows if each.more_is_better]),
        ("Less is better:", [each for each in rows if not each.more_is_better]),
    ):
        lines += [title, "", *_table(report, chosen, marks), ""]
    lines += ["Each is the median of the rounds, with the farthest from it in per cent; the best"]
    lines[-1] += " of a column is bold. *no* and remarks:"
    lines += ["", *(f"{number}. {text};" for text, number in marks.items())]
    lines[-1] = lines[-1].rstrip(";") + "."
    lines += ["", "The workloads:", ""]
    lines += [f"- *{each.title}*, {each.unit}: {each.what};" for each in rows]
    lines[-1] = lines[-1].rstrip(";") + "."
    lines += ["", "The peers, and the settings that differ from their defaults:", ""]
    for peer in report["peers"].values():
        packages = ", ".join(f"{name} {version}" for name, version in peer["packages"].items())
        lines.append(
            f"- *{peer['title']}*{f' ({packages})' if packages else ''}: {peer['settings']};"
        )
    lines[-1] = lines[-1].rstrip(";") + "."
    return [*lines, "", _from(report)]


def _table(report: Report, rows: Sequence[Workload], marks: dict[str, int]) -> list[str]:
    lines = [_row(["", *(f"{each.title}, {each.unit}" for each in rows)])]
    lines.append(_row(["---", *["---:"] * len(rows)]))
    best = {each.key: _best(report["cells"][each.key], each) for each in rows}
    for name, peer in report["peers"].items():
        cells = [f"{peer['title']} {peer['version']}".strip()]
        for each in rows:
            cell = report["cells"][each.key].get(name)
            cells.append(_full_cell(cell, name == best[each.key], marks) if cell else "")
        lines.append(_row(cells))
    return lines


def _best(cells: Mapping[str, Report], row: Workload) -> str:
    good = {name: cell["median"] for name, cell in cells.items() if "median" in cell}
    if not good:
        return ""
    return (max if row.more_is_better else min)(good, key=lambda name: good[name])


def _full_cell(cell: Report, best: bool, marks: dict[str, int]) -> str:
    texts = [cell[key] for key in ("no", "note", "failed", "how") if key in cell]
    signs = ", ".join(str(marks.setdefault(text, len(marks) + 1)) for text in texts)
    sup = f" <sup>{signs}</sup>" if signs else ""
    if "no" in cell:
        return f"no{sup}"
    median = cell["median"]
    value = f"**{_number(median)}**" if best else _number(median)
    if cell["rounds"] > 1 and median:
        far = max(abs(cell["high"] - median), abs(cell["low"] - median)) / median
        value += f" (±{far * 100:.0f} %)"
    return value + sup


def brief(report: Report) -> list[str]:
    """The README's: one row for each family, and when to prefer it."""
    lines = [_row(["", *BRIEF.values(), "prefer it to gmpd when"])]
    lines.append(_row(["---", *["---:"] * len(BRIEF), "---"]))
    best = {key: _best(report["cells"].get(key, {}), ALL[key]) for key in BRIEF}
    for name, choice in CHOICE.items():
        if name in report["peers"]:
            cells = [_brief_cell(report, key, name, best[key] == name) for key in BRIEF]
            lines.append(_row([report["peers"][name]["title"], *cells, choice]))
    more = "[all peers, workloads, versions and settings](loadtests/README.md#gmpd-and-its-peers)"
    return [*lines, "", f"Bold: the best of a column. {where_and_when(report)}; {more}."]


def _brief_cell(report: Report, key: str, name: str, best: bool) -> str:
    cell = report["cells"].get(key, {}).get(name, {"no": ""})
    if "no" in cell:
        return "no"
    value = cell["median"] / 1000 if key in THOUSANDTH else cell["median"]
    text = f"{value:.0f} %" if key == "killed" else _number(value)
    return f"**{text}**" if best else text


def _number(value: float) -> str:
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.3g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def where_and_when(report: Report) -> str:
    """Machine, date and load, in a few words."""
    m = report["machine"]
    quick = ", a short run" if report["quick"] else ""
    loads = sorted(peer["load"] for peer in report["peers"].values())
    return (
        f"{report['date']}, {report['procs']} cores of “{m['cpu']}”, Python {m['python']}, load"
        f" {loads[0]:.0f} to {loads[-1]:.0f}{quick}"
    )


def _from(report: Report) -> str:
    m = report["machine"]
    return (
        f"{report['rounds']} rounds, {where_and_when(report)}; Linux"
        f" {m['kernel']}, Redis {report['redis']}, {report['seconds']:,} s."
    )
