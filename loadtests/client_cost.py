"""The cost of jobs to their client, from submit to result: its CPU time, and jobs a second.

    python loadtests/client_cost.py

Five times 10,000 jobs that do nothing, then each one's ``result()``; and the same with
``concurrent.futures.wait``. For two trees: in turn, by PYTHONPATH, from an interpreter of each.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import gmpd

JOBS, ROUNDS = 10_000, 5


def results(futures: list[Any]) -> None:
    for future in futures:
        future.result()


def cost(client: gmpd.Client, await_all: Callable[[list[Any]], object]) -> tuple[float, float]:
    """Microseconds of CPU time per job, and the median of the rates."""
    rates = []
    cpu = time.process_time()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await_all([client.submit(math.sqrt, 4.0) for _ in range(JOBS)])
        rates.append(JOBS / (time.perf_counter() - began))
    return (time.process_time() - cpu) / ROUNDS / JOBS * 1e6, statistics.median(rates)


def main() -> None:
    with gmpd.Client() as client:
        results([client.submit(math.sqrt, 4.0) for _ in range(3_000)])
        for name, await_all in (("result", results), ("wait", wait)):
            us, rate = cost(client, await_all)
            print(f"submit, {name:8} {us:6.2f} us per job {rate:10,.0f} jobs/s")


if __name__ == "__main__":
    main()
