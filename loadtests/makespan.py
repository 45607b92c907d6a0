"""How well one root's children spread: makespan against the ideal, a plain process pool beside it.

    python loadtests/makespan.py --seed 1

One root G spawns children that do uneven work (Pareto-distributed loops on the CPU, total some
seconds). The ideal is what the two cores really give: the same loops, split by hand in two equal
halves, in two processes at once. On a machine that others use meanwhile no two rounds are alike, so
all is counted in what both cores had left: a round's seconds, times two, less the CPU time that the
kernel says all others took. Prints each round, then the medians of the ratios to the ideal of the
same round. It never knows how children are moved.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gmpd
from gmpd.cli.app import App
from gmpd.cli.private import private_client

sys.path.insert(0, str(Path(__file__).parent))
import makespan_jobs as jobs  # type: ignore[import-not-found]
from machine import describe  # type: ignore[import-not-found]

PROCS = 2
#: USER_HZ, fixed by the kernel's interface.
TICKS_PER_S = 100


def pareto(seed: int, n: int, total_s: float, alpha: float, calibration: float) -> list[int]:
    """Rounds of the loop for each child: heavy tail, in random order, ``total_s`` seconds in all.

    One child is at most a fiftieth of the whole: beyond that no scheduler can be fair.
    """
    dice = random.Random(seed)
    sizes = [dice.paretovariate(alpha) for _ in range(n)]
    for _ in range(50):
        cap = sum(sizes) / 50
        sizes = [min(size, cap) for size in sizes]
    rounds = total_s * calibration / sum(sizes)
    return [max(1, int(size * rounds)) for size in sizes]


def halves(sizes: Sequence[int]) -> list[list[int]]:
    """Two halves of equal work: the largest first, each to the half that has less."""
    split: list[list[int]] = [[], []]
    for size in sorted(sizes, reverse=True):
        min(split, key=sum).append(size)
    return split


class Left:
    """CPU seconds of all cores that are left for ``pids`` over a stretch of time: theirs, or idle.

    They must all be alive at its end.
    """

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._pids = pids
        self._at = time.perf_counter()
        self._busy, self._theirs = _busy_s(), sum(map(_cpu_s, pids))

    def seconds(self) -> float:
        """Per core, since this was made."""
        took = time.perf_counter() - self._at
        theirs = sum(map(_cpu_s, self._pids)) - self._theirs
        others = max(0.0, _busy_s() - self._busy - theirs)
        return took - others / (os.cpu_count() or 1)


def _busy_s() -> float:
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def _cpu_s(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICKS_PER_S


def ideal(split: list[list[int]]) -> float:
    """Seconds for both halves at once, each in a process of its own, pinned like a worker."""
    barrier = multiprocessing.Barrier(PROCS + 1)
    times: multiprocessing.Queue[int] = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=jobs.burn_all, args=(half, core, barrier, times))
        for half, core in zip(split, sorted(os.sched_getaffinity(0)), strict=False)
    ]
    for process in processes:
        process.start()
    while barrier.n_waiting < PROCS:
        time.sleep(0.005)
    left = Left([process.pid or 0 for process in processes])
    barrier.wait()
    for _ in processes:
        times.get()
    took = left.seconds()
    barrier.wait()
    for process in processes:
        process.join()
    return took


def pool(sizes: Sequence[int]) -> float:
    with multiprocessing.Pool(PROCS) as workers:
        workers.map(jobs.burn, [1] * 16)
        left = Left([os.getpid(), *(process.pid for process in workers._pool)])  # type: ignore[attr-defined]
        workers.map(jobs.burn, sizes, chunksize=1)
        return left.seconds()


def root(client: gmpd.Client, sizes: Sequence[int]) -> tuple[float, float]:
    """(seconds, the least share of the children that a worker had)."""
    status = client.call("status")
    future = client.submit(jobs.root, list(sizes))
    left = Left([os.getpid(), status["pid"], *(each["pid"] for each in status["ps"])])
    pids = future.result(timeout=300)
    took = left.seconds()
    shares = Counter(dict(pids))
    return took, min(shares.values()) / len(sizes) if len(shares) == PROCS else 0.0


def measure(client: gmpd.Client, args: argparse.Namespace) -> list[dict[str, Any]]:
    calibration = jobs.calibrate()
    rounds = []
    for at in range(args.rounds):
        sizes = pareto(args.seed + at, args.children, args.total, args.alpha, calibration)
        best = ideal(halves(sizes))
        took, share = root(client, sizes)
        pooled = pool(sizes)
        rounds.append(
            {
                "seed": args.seed + at,
                "ideal_s": best,
                "gmpd": took / best,
                "pool": pooled / best,
                "least_share": share,
            }
        )
        print(
            f"seed {args.seed + at}: ideal {best:.2f} s, gmpd {took / best:.3f} x,"
            f" multiprocessing.Pool {pooled / best:.3f} x, least share {share:.0%}",
            file=sys.stderr,
        )
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--children", type=int, default=10_000)
    parser.add_argument("--total", type=float, default=10.0, help="seconds of work in all")
    parser.add_argument("--alpha", type=float, default=1.3, help="the tail: heavier towards 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", type=Path, help="write the figures here, as JSON")
    args = parser.parse_args()
    with private_client(App(), PROCS) as client:
        client.submit(jobs.root, [1] * 100).result(timeout=60)
        rounds = measure(client, args)
    result = {
        "machine": describe(),
        "children": args.children,
        "total_s": args.total,
        "alpha": args.alpha,
        "procs": PROCS,
        "gmpd": statistics.median(each["gmpd"] for each in rounds),
        "pool": statistics.median(each["pool"] for each in rounds),
        "rounds": rounds,
    }
    if args.record:
        args.record.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"makespan over ideal, medians of {args.rounds}: gmpd {result['gmpd']:.3f},"
        f" multiprocessing.Pool {result['pool']:.3f}"
    )


if __name__ == "__main__":
    main()
