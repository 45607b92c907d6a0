"""Put the recorded results into the READMEs, between their markers: `python loadtests/readme.py`.

Numbers that are copied by hand are sooner or later those of another day; a test compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)

from loadtests.peers import tables  # noqa: E402 - found from the line above

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
    lines += ["", "In brackets: gmpd's number divided by the peer's. The rows:", ""]
    lines += [f"- *{figure}*: {row['what']};" for figure, row in report["figures"].items()]
    lines[-1] = lines[-1].rstrip(";") + "."
    return [*lines, "", _from(report)]


def pythons(report: Report) -> list[str]:
    """The cost of a G on each version, by asyncio's on the same one; the collector's pauses."""
    figures = ("switch", "spawn", "channel", "memory")
    units = next(iter(report.values()))["figures"]
    heads = [f"{name}, {units[name]['unit']}" for name in figures]
    lines = [
        _row(["Python", *heads, "longest pause, ms: minded, bare"]),
        _row(["---", *["---:"] * (len(figures) + 1)]),
    ]
    for version, each in report.items():
        cells = [version]
        for name in figures:
            seen = each["figures"][name]["by"]["gmpd"]
            ratio = each["figures"][name]["by"]["asyncio"]["gmpd_by_it"]
            cells.append(f"{seen['median']:,.0f} (x{ratio:.2f})")
        pauses = [f"{each['collector'][kind]['longest_ms']:.0f}" for kind in ("minded", "bare")]
        lines.append(_row([*cells, ", ".join(pauses)]))
    last = next(reversed(report.values()))
    gs = last["collector"]["gs"]
    lines += ["", f"The pause is the collector's longest beside {gs:,} parked Gs, in CPU time."]
    return [*lines, "", _from(last)]


def product(report: Report) -> list[str]:
    """Tests that passed on each Python and variant of the core, by parts of product.py."""
    parts = list(dict.fromkeys(row["part"] for row in report["rows"]))
    lines = [_row(["Python", "core", *parts]), _row(["---", "---", *["---:"] * len(parts)])]
    by_variant: dict[tuple[str, str], Report] = {}
    for row in report["rows"]:
        by_variant.setdefault((row["python"], row["variant"]), {})[row["part"]] = row
    for names, found in by_variant.items():
        lines.append(_row([*names, *(_passed(found.get(part)) for part in parts)]))
    return lines


def _passed(row: Report | None) -> str:
    if row is None:
        return "–"
    failed = f", {len(row['failed']):,} failed" if row["failed"] else ""
    second = f", {len(row['second_try']):,} at the second try" if row["second_try"] else ""
    return f"{row['passed']:,}{failed}{second}"


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


def bench(report: Report) -> list[str]:
    """The rows of `gmpd bench`: gmpd beside its peers, and the daemon's own figures."""
    lines = [_row(["", "unit", "gmpd", "peer", "ratio"]), _row(["---"] * 2 + ["---:"] * 3)]
    for row in report["rows"]:
        cells = [row["what"], row["unit"], _number(row["gmpd"])]
        if "peer" in row:
            cells += [f"{_number(row['peer'])} ({row['peer_name']})", f"x{row['ratio']:.2f}"]
        else:
            cells += ["", ""]
        lines.append(_row(cells))
    return [*lines, "", _from(report)]


def against(report: Report) -> list[str]:
    """The cost of each operation to each process, beside the earlier version."""
    parts = list(next(iter(report["rows"].values())))
    lines = [_row(["us for each", *parts]), _row(["---", *["---:"] * len(parts)])]
    for what, row in report["rows"].items():
        cells = [
            f"{each['before']:.3g} → {each['after']:.3g} (x{each['ratio']:.2f})"
            for each in row.values()
        ]
        lines.append(_row([what, *cells]))
    return [*lines, "", f"{report['boots']} boots of each {_machine(report)}"]


def million(report: Report) -> list[str]:
    """A daemon with a million Gs: the cost of each, and of other work beside them."""
    runs = {"on a channel": report["channel"], "asleep": report["sleep"]}
    rows: dict[str, Callable[[Report], str]] = {
        "resident memory for each, B": lambda run: f"{run['bytes_per_g']:,.0f}",
        "of these, the user's coroutine": lambda run: f"{run['parts'][USERS]}",
        "all spawned and parked after, s": lambda run: f"{run['spawn_and_park_s']:.1f}",
        "longest pause of the garbage collector, ms": lambda run: f"{run['gc_pause_max_ms']:.0f}",
        "a short job beside them, p50 and p99, ms": lambda run: _both(run, "job"),
        "`status` beside them, p50 and p99, ms": lambda run: _both(run, "status"),
        "woken": lambda run: f"{run['woken']:,}",
        "all awake after, s": lambda run: f"{run['wake_s']:.1f}",
    }
    lines = [_row(["", *runs]), _row(["---", *["---:"] * len(runs)])]
    lines += [_row([name, *map(cell, runs.values())]) for name, cell in rows.items()]
    return [*lines, "", f"One run of {report['gs']:,} Gs each {_machine(report)}"]


def makespan(report: Report) -> list[str]:
    """Times by the ideal, for each seed."""
    lines = [_row(["seed", "ideal, s", "gmpd", "Pool"]), _row(["---:"] * 4)]
    for each in report["rounds"]:
        cells = [f"x{each[name]:.3f}" for name in ("gmpd", "pool")]
        lines.append(_row([str(each["seed"]), f"{each['ideal_s']:.2f}", *cells]))
    medians = [f"**x{report[name]:.3f}**" for name in ("gmpd", "pool")]
    lines.append(_row(["median", "", *medians]))
    return [*lines, "", f"{len(report['rounds'])} rounds {_machine(report)}"]


#: The part of a G's memory that is not gmpd's.
USERS = "the user's coroutine"


def fuzz(report: Report) -> list[str]:
    """How long fuzz.py ran, and what it found."""
    lines = [_row(["", "rounds", "messages"]), _row(["---", "---:", "---:"])]
    for name, rounds in report["rounds"].items():
        lines.append(_row([name, f"{rounds:,}", f"{report['messages'][name]:,}"]))
    found = report["found"] or "nothing"
    seconds, first = report["seconds"], report["first seed"]
    return [*lines, "", f"{seconds:,} s from seed {first:,} on, found: {found}."]


def chaos(report: Report) -> list[str]:
    """Counts of kills and jobs, and the findings of the ledgers."""
    jobs, killed, found = report["jobs"], report["killed"], report["found"]
    counts = {
        "workers killed": killed["worker"],
        "coordinators killed": killed["coordinator"],
        "of these just after an acknowledgement": killed["of these at an acknowledgement"],
        "clients killed": killed["client"],
        "processes stopped for a moment": sum(
            n for what, n in killed.items() if what.endswith("stopped")
        ),
        "jobs acknowledged": jobs["acknowledged"],
        "jobs without an answer, and of these ran": jobs["unknown"],
        "attempts": jobs["starts"],
        "jobs with more than one attempt": jobs["repeated"],
        "attempts that a death cut off (not counted in the first 27 rounds)": jobs["cut"],
    }
    lines = [_row(["", ""]), _row(["---", "---:"])]
    for what, n in counts.items():
        more = f", {jobs['recovered']:,}" if n is jobs["unknown"] else ""
        lines.append(_row([what, f"{n:,}{more}"]))
    lines += [_row([f"**{what}**", f"**{n:,}**"]) for what, n in found.items()]
    return [*lines, "", _from(report)]


def durable(report: Report) -> list[str]:
    """Enqueued in a second, restarts, deaths."""
    enqueue, loads = report["enqueue"], report["loads"]
    rates, one, disk = enqueue["jobs_per_s"], enqueue["one"], enqueue["fsync"]
    lines = [_row(["", "jobs/s", "one: p50, p99, ms"]), _row(["---", "---:", "---:"])]
    lines += [
        _row(["a flush of this disk", "", _pair(disk)]),
        _row(["the bare store, the same rows", f"{rates['bare store']:,.0f}", ""]),
        _row(["`enqueue_many`", f"{rates['enqueue_many']:,.0f}", ""]),
        _row(["`enqueue`, 20,000 at a time (asyncio)", f"{rates['gather']:,.0f}", ""]),
        _row(["`enqueue`, one after the other", f"{one['jobs_per_s']:,.0f}", _pair(one)]),
    ]
    for name, peer in enqueue["peers"].items():
        lines.append(_row([name, f"{peer['jobs_per_s']:,.0f}", _pair(peer)]))
        if peer["many_per_s"]:
            lines.append(_row([f"{name}, `enqueue_many`", f"{peer['many_per_s']:,.0f}", ""]))
    ratio, low, high = (enqueue[name] for name in ("by_bare_store", "lowest", "highest"))
    lines += ["", f"`enqueue_many` by the bare store, round by round: x{ratio:.2f}"]
    lines[-1] += f" ({low:.2f} to {high:.2f}). A restart after `kill -9`:"
    lines += ["", _row(["queued", "ready, s", "coordinator, MB"]), _row(["---:"] * 3)]
    for each in report["restarts"]:
        cells = [f"{each['queued']:,}", f"{each['ready_s']:.2f}", f"{each['rss_mb']:.0f}"]
        lines.append(_row(cells))
    kinds = {"functions": "a function that ends no other workers", "suspect": "a suspect one"}
    lines += ["", _row(["from a worker's death to its job's next attempt", "p50, p99, ms"])]
    lines.append(_row(["---", "---:"]))
    lines += [_row([what, _pair(report["death"][kind])]) for kind, what in kinds.items()]
    told = ", ".join(f"{part} {before} to {after}" for part, (before, after) in loads.items())
    return [*lines, "", f"Load during each: {told}. {_from(report)}"]


def _pair(seen: Report) -> str:
    return f"{seen['p50_ms']:,.2f}, {seen['p99_ms']:,.2f}"


def recycles(report: Report) -> list[str]:
    """How many, and what each process had."""
    lines = [_row(["", "early, MB", "late, MB", "most, MB"]), _row(["---", *["---:"] * 3])]
    for name, each in report["memory"].items():
        cells = [f"{each[key]:.1f}" for key in ("early_mb", "late_mb", "max_mb")]
        lines.append(_row([name, *cells]))
    told = (
        f"{report['recycles']:,} recycles, {report['jobs']:,} volatile and"
        f" {report['durable']:,} durable jobs in {report['seconds']:,.0f} s,"
        f" {report['lost']:,} lost,"
    )
    return [*lines, "", f"{told} {_machine(report)}"]


def hosts_faults(report: Report) -> list[str]:
    """One row for each fault."""
    heads = {
        "jobs": "jobs", "on_hosts": "attempts on hosts", "tried_again": "second tries",
        "lost": "`WorkerLost`", "wrong": "wrong", "too_many_attempts": "run too often",
        "seconds": "all done, s", "serves_after_s": "host serves, s later",
    }  # fmt: skip
    lines = [_row(["fault", *heads.values()]), _row(["---", *["---:"] * len(heads)])]
    lines += [
        _row([f"`{name}`", *[f"{row[key]:,}" for key in heads]])
        for name, row in report["faults"].items()
    ]
    return [*lines, "", f"Hosts in {report['hosts']}, {_machine(report)}"]


def watching(report: Report) -> list[str]:
    """Each kind of watcher by the turns without one around it."""
    heads = ["p50", "p99", "CPU of a round trip", "jobs/s", "CPU of a job"]
    units = {
        "p50_ms": "{:.2f} ms", "p99_ms": "{:.1f} ms", "trip_cpu_us": "{:,.0f} us",
        "jobs_per_s": "{:,.0f}", "job_cpu_us": "{:.1f} us",
    }  # fmt: skip
    alone = next(iter(report["watchers"].values()))
    lines = [_row(["", *heads]), _row(["---", *["---:"] * len(heads)])]
    lines.append(_row(["none", *(unit.format(alone[k]["alone"]) for k, unit in units.items())]))
    for name, each in report["watchers"].items():
        cells = [f"x{each[key]['ratio']:.2f} ({_range(each[key])})" for key in units]
        lines.append(_row([name, *cells]))
    lines += ["", _row(["bytes a second to one page", "idle", "busy"])]
    lines.append(_row(["---", "---:", "---:"]))
    for view, rates in report["page_bytes_per_s"].items():
        lines.append(_row([view, f"{rates['idle']:,}", f"{rates['busy']:,}"]))
    told = (
        f"In brackets the quartiles. Busy: {report['busy_jobs_per_s']:,} jobs a second. Load"
        f" {' to '.join(map(str, report['load']))}."
    )
    return [*lines, "", f"{told} {_from(report)}"]


def _range(seen: Report) -> str:
    low, high = seen["quartiles"]
    return f"{low:.2f} to {high:.2f}"


def watched_hour(report: Report) -> list[str]:
    """The memory of each process and of the page."""
    lines = [_row(["", "early", "late", "most"]), _row(["---", *["---:"] * 3])]
    for name, each in report["memory"].items():
        lines.append(_row([name, *(f"{each[key]:,.1f}" for key in ("early", "late", "most"))]))
    told = (
        f"{report['seconds']:,} s, {report['jobs']:,} jobs ({report['jobs_per_s']:,} a second,"
        f" {report['durable']:,} of all durable), {report['events']:,} events and"
        f" {report['views']:,} views shown, {len(report['console'])} lines in the console; load"
        f" {report['load']['median']}, at most {report['load']['most']};"
    )
    return [*lines, "", f"{told} {_machine(report)}"]


def scale(report: Report) -> list[str]:
    """The smallest and the largest number of each part, and where the coordinator saturates."""
    lines: list[str] = []
    who = ("wall", "client", "coordinator", "workers")
    for part, x in (("jobs", "jobs"), ("workers", "workers"), ("clients", "clients")):
        more = {
            "jobs": {"coordinator, MB": "coordinator_mb"},
            "workers": {
                "jobs/s": "jobs_per_s",
                "coordinator saturates at jobs/s": "saturates_at_jobs_per_s",
                "and Ps, with jobs of 1 ms": "saturates_at_ps",
                "at rest, us/s: coordinator": "idle_coordinator_us_per_s",
                "a worker": "idle_worker_us_per_s",
            },
            "clients": {"jobs/s": "jobs_per_s", "p50, ms": "p50_ms", "p99, ms": "p99_ms"},
        }[part]
        heads = [*(f"{each}, us" for each in who), *more]
        keys = [*(f"{each}_us" for each in who), *more.values()]
        lines += [*_numbers(x, heads, [(row[x], [row[k] for k in keys]) for row in report[part]])]
    gs = {
        "spawn and park, us": "spawn_us", "CPU until parked, us": "worker_us",
        "wake, us": "wake_us",
        "bytes": "bytes_per_g", "a short job beside, p50, ms": "short_job_p50_ms",
        "p99, ms": "short_job_p99_ms",
    }  # fmt: skip
    rows = [(row["gs"], [row[key] for key in gs.values()]) for row in report["gs"]]
    lines += _numbers("Gs of one P", [*gs], rows)
    sizes = [
        (f"{kind}, {what}", f"{kind}_{key}")
        for kind in ("bytes", "numpy")
        for what, key in (
            ("MB/s", "mb_per_s"),
            *((f"{each}, us", f"{each}_us") for each in who[1:]),
        )
    ]
    found = [(row["bytes"], [row[key] for _, key in sizes]) for row in report["payloads"]]
    lines += _numbers("bytes", [head for head, _ in sizes], found)
    short = ", a short run" if report["quick"] else ""
    told = f"{sum(report['seconds'].values()):,} s{short}, {report['variant']},"
    return [*lines, f"{told} {_machine(report)} After: {report['load_after']:.1f}."]


def feed(report: Report) -> list[str]:
    """Limits by kind of job, the makespan of jobs of 1 ms, and the costs."""
    heads = ["jobs", "most jobs/s", "at hosts x cores", "cores kept busy", "coordinator full from"]
    lines = [_row(heads), _row(["---", "---:", "---:", "---:", "---:"])]
    for row in report["limits"]:
        cells = [row["kind"], f"{row['most_jobs_per_s']:,.0f}", row["at"]]
        found = [row[key] for key in ("good_cores", "full_from_cores")]
        cells += ["–" if cores is None else f"{cores:,} cores" for cores in found]
        lines.append(_row(cells))
    sizes = sorted({row["cores"] for row in report["rows"]})
    lines += ["", _row(["hosts; jobs of 1 ms", *(f"{n} cores each" for n in sizes)])]
    lines.append(_row(["---:"] * (len(sizes) + 1)))
    by_place = {
        (row["hosts"], row["cores"]): row for row in report["rows"] if row["kind"] == "1 ms"
    }
    for hosts in sorted({hosts for hosts, _ in by_place}):
        seen = [by_place[hosts, cores] for cores in sizes]
        cells = [f"x{each['by_ideal']:.2f}, {each['coordinator']:.0%}" for each in seen]
        lines.append(_row([f"{hosts}", *cells]))
    costs = ", ".join(f"{name} {us:g}" for name, us in report["costs"].items())
    told = f"Makespan by the ideal, and the coordinator's share of a core. Costs, us: {costs};"
    return [*lines, "", f"{told} {_machine(report)}"]


def _numbers(x: str, heads: list[str], rows: list[tuple[int, list[float]]]) -> list[str]:
    lines = [_row([x, *heads]), _row(["---:"] * (len(heads) + 1))]
    lines += [_row([f"{at:,}", *map(_number, values)]) for at, values in rows]
    return [*lines, ""]


def _both(run: Report, kind: str) -> str:
    seen = run["pings"]["parked"][kind]
    return f"{seen['p50_ms']:.1f}, {seen['p99_ms']:.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _from(report: Report) -> str:
    return f"{report['rounds']} rounds {_machine(report)}"


def _machine(report: Report) -> str:
    m = report["machine"]
    return (
        f"on {m['cores']} cores of “{m['cpu']}”, "
        f"Python {m['python']}, Linux {m['kernel']}; load before: {m['load_before']:.1f}."
    )


TABLES: dict[str, Callable[[Report], list[str]]] = {
    "peers": tables.full,
    "bench": bench,
    "against": against,
    "scale": scale,
    "feed": feed,
    "runtime": runtime,
    "pythons": pythons,
    "product": product,
    "handoff": handoff,
    "makespan": makespan,
    "million": million,
    "fuzz": fuzz,
    "chaos": chaos,
    "durable": durable,
    "recycles": recycles,
    "hosts_faults": hosts_faults,
    "watching": watching,
    "watched_hour": watched_hour,
}


#: Those of the README of the project.
BRIEF: dict[str, Callable[[Report], list[str]]] = {"peers": tables.brief}


def filled(text: str, made: dict[str, Callable[[Report], list[str]]] = TABLES) -> str:
    """The README with every table as the results have it."""
    for name, make in made.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        report = json.loads((HERE / "results" / f"{name}.json").read_text())
        text = head + begin + "\n".join(make(report)) + "\n" + end + tail
    return text


if __name__ == "__main__":
    for readme, made in ((HERE / "README.md", TABLES), (HERE.parent / "README.md", BRIEF)):
        readme.write_text(filled(readme.read_text(), made))
