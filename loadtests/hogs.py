"""Short jobs of one client while another's hogs compute on every P.

    python loadtests/hogs.py --output loadtests/results/hogs.json

A daemon with two Ps; 1, 2, 4 and 8 hogs on each, of pure Python, hashlib, NumPy and pandas (the
last two if they are installed). Meanwhile a second client submits short jobs one after the other, a
coroutine and a plain function in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gmpd import Client  # noqa: E402 - found from the line above
from gmpd.cli.app import App  # noqa: E402
from gmpd.cli.private import private_client  # noqa: E402
from loadtests import hog_jobs as jobs  # noqa: E402
from loadtests.machine import describe  # noqa: E402

PROCS = 2
#: Between the end of one short job and the next.
PAUSE_S = 0.01
KINDS = {"python": None, "hashed": None, "numpy": "numpy", "pandas": "pandas"}
#: A short job that takes longer than this is given up, in seconds.
LOST_S = 60.0


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def beside(client: Any, other: Any, kind: str, per_p: int, seconds: float) -> dict[str, Any]:
    hogs = [client.submit(getattr(jobs, kind), seconds) for _ in range(PROCS * per_p)]
    time.sleep(0.05)
    times: dict[str, list[float]] = {"async": [], "plain": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, fn in (("async", jobs.short_async), ("plain", jobs.short_plain)):
            began = time.perf_counter()
            other.submit(fn, 1).result(LOST_S)
            times[name].append((time.perf_counter() - began) * 1e3)
            time.sleep(PAUSE_S)
    for hog in hogs:
        hog.cancel()
    for hog in hogs:
        if not hog.cancelled():
            hog.result(LOST_S)
    return {
        name: {
            "p50_ms": round(percentile(values, 0.5), 2),
            "p99_ms": round(percentile(values, 0.99), 2),
            "max_ms": round(max(values), 2),
            "count": len(values),
        }
        for name, values in times.items()
    }


def measure(kinds: Sequence[str], crowds: Sequence[int], seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with (
        private_client(App(), PROCS, ["loadtests.hog_jobs"]) as client,
        Client(client.endpoint) as other,
    ):
        for fn in (jobs.short_async, jobs.short_plain) * PROCS:  # workers have started, and know it
            other.submit(fn, 1).result(LOST_S)
        for kind in kinds:
            for per_p in crowds:
                row = beside(client, other, kind, per_p, seconds)
                figures.setdefault(kind, {})[str(per_p)] = row
                for name, seen in row.items():
                    print(
                        f"{kind:<8}{per_p:>3} per P  short {name:<6}"
                        f" p50 {seen['p50_ms']:>8.1f}  p99 {seen['p99_ms']:>8.1f}"
                        f"  max {seen['max_ms']:>8.1f} ms  ({seen['count']})",
                        flush=True,
                    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each hog computes")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), help="these hogs")
    parser.add_argument("--per-p", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--output", help="write the report there, as JSON")
    options = parser.parse_args()
    machine = describe()
    there = [name for name, needs in KINDS.items() if not needs or importlib.util.find_spec(needs)]
    kinds = [name for name in options.only or there if name in there]
    figures = measure(kinds, options.per_p, options.seconds)
    report = {"machine": machine, "seconds": options.seconds, **figures}
    if options.output:
        Path(options.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
