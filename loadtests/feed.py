"""A simulation, from measured costs, of the hosts that one coordinator can feed.

    python loadtests/feed.py --measure --record     # measure the costs, then simulate
    python loadtests/feed.py --record               # simulate with the costs that were recorded
    python loadtests/feed.py --quick                # fewer hosts and jobs

Hosts (1 to 64) by cores (2, 8, 32), and this machine's P; jobs that do nothing, take 1 ms or 10 ms,
or have a heavy tail (Pareto, 5 ms on average). The simulation (feed_model.py) runs the real policy
and the real bridges on a virtual clock; costs (feed_costs.py) are in results/feed.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path[0:0] = [str(Path(__file__).parents[1])]

from loadtests import feed_plot, machine  # noqa: E402 - found from the line above
from loadtests.feed_model import Costs, World  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "feed.json"
Row = dict[str, Any]

HOSTS = (1, 2, 4, 8, 16, 32, 64)
CORES = (2, 8, 32)
KINDS = ("no-op", "1 ms", "10 ms", "tail")
#: Jobs of one run, at most; and as many as keep all cores busy for this long (ns).
JOBS_MAX, JOBS_MIN, LASTS_NS = 40_000, 2_000, 1_000_000_000
MS = 1_000_000
#: Of the heavy tail: exponent, mean and longest.
ALPHA, MEAN_NS, LONGEST_NS = 1.5, 5 * MS, 200 * MS
#: A coordinator or bridge that is busier than this is what limits a run.
FULL = 0.9
#: A makespan within this share of the ideal is a good one.
GOOD = 1.1


def lengths(kind: str, cores: int, seed: int) -> list[int]:
    """Nanoseconds of each job of a run."""
    each = {"no-op": 0, "1 ms": MS, "10 ms": 10 * MS, "tail": MEAN_NS}[kind]
    n = JOBS_MAX if not each else LASTS_NS * cores // each
    n = max(JOBS_MIN, min(JOBS_MAX, n))
    if kind != "tail":
        return [each] * n
    dice = random.Random(seed)
    least = MEAN_NS * (ALPHA - 1) / ALPHA
    return [min(LONGEST_NS, int(least * dice.paretovariate(ALPHA))) for _ in range(n)]


def simulated(
    costs: Costs, hosts: Sequence[int], cores: Sequence[int], share: float, seed: int
) -> list[Row]:
    """A row for each kind, number of hosts, and of cores. ``share``: of the jobs of a whole run."""
    rows = []
    for kind in KINDS:
        for each_cores in cores:
            for n in hosts:
                own = lengths(kind, n * each_cores + 1, seed)
                own = own[: max(JOBS_MIN, int(len(own) * share))]
                report = World(n, each_cores, own, costs, seed).run()
                row = {"kind": kind, "hosts": n, "cores": each_cores} | _rounded(asdict(report))
                rows.append(row | {"limit": _limit(row)})
                told = ", ".join(f"{name} {value}" for name, value in rows[-1].items())
                print(told, file=sys.stderr, flush=True)
    return rows


def _limit(row: Row) -> str:
    """The process, or the cores, that a run waits for."""
    busiest = max(("coordinator", "bridge_most"), key=lambda who: float(row[who]))
    if row[busiest] >= FULL:
        return busiest.removesuffix("_most")
    return "cores" if row["hosts_busy"] >= FULL else ""


def _rounded(report: Row) -> Row:
    report["hosts_busy"] = report.pop("busy")
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in report.items()
    }


def limits(rows: Sequence[Row]) -> list[Row]:
    """For each kind of job: the most jobs a second, and the most cores that are kept busy."""
    found = []
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        most = max(of_kind, key=lambda row: row["jobs_per_s"])
        good = [row for row in of_kind if row["by_ideal"] and row["by_ideal"] <= GOOD]
        full = [row for row in of_kind if row["limit"] == "coordinator"]
        found.append({
            "kind": kind,
            "most_jobs_per_s": most["jobs_per_s"],
            "at": f"{most['hosts']} x {most['cores']}",
            "good_cores": max((row["hosts"] * row["cores"] for row in good), default=None),
            "full_from_cores": min((row["hosts"] * row["cores"] for row in full), default=None),
        })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure the costs first")
    parser.add_argument("--quick", action="store_true", help="fewer hosts and jobs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args()
    report: Row = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if args.measure:
        from loadtests import feed_costs

        report |= {"machine": machine.describe(), "costs": feed_costs.measured()}
    costs = Costs(**report["costs"])
    print(costs, file=sys.stderr)
    hosts, share = (HOSTS[:4], 0.1) if args.quick else (HOSTS, 1.0)
    report |= {"seed": args.seed, "rows": simulated(costs, hosts, CORES, share, args.seed)}
    report["limits"] = limits(report["rows"])
    for row in report["limits"]:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    if args.record:
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
        try:
            feed_plot.draw(report, feed_plot.PICTURE)
        except ImportError:
            print("no picture: pip install '.[load]' first", file=sys.stderr)


if __name__ == "__main__":
    main()
