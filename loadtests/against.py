"""Two versions beside each other, round by round in turn: the part of `bench.py --against REV`.

A boot of a version is a process with a private daemon and its client, and one with a P alone. Boots
of both versions live side by side, and measure each row in turn, a tenth of a second each: other
work on the machine meets both alike. The ratio of a pair of boots is the median of their rounds'
ratios; reported are the median of the pairs' ratios and their quartiles, and ``best``: the ratio of
the shortest times.

Each process's CPU time is without ZeroMQ's own threads, which have a column of their own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import glob
import importlib
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PARTS = ("wall", "client", "coordinator", "workers", "zeromq", "cpu")

#: Of a row its parts, in microseconds for each operation; ``cpu`` is the sum of the others.
Figures = dict[str, float]
#: The rounds of one boot, by rows.
Boot = dict[str, list[Figures]]

#: Rows of a daemon: operations of a round, rounds in a boot.
OF_DAEMON = {
    "round trip": (250, 12),
    "submit, then results": (4_000, 8),
    "submit, then wait": (4_000, 8),
    "30 at a time": (900, 8),
    "jobs of 1 ms": (300, 6),
    "coroutines": (3_000, 6),
    "map": (200_000, 8),
}
#: Rows of a P alone, by their names in runtime_figures.py: operations (or batches of 100), rounds.
OF_RUNTIME = {"switch": (5_000, 7), "spawn": (125, 7), "channel": (7_500, 7)}
ROWS = (*OF_DAEMON, *OF_RUNTIME)

#: A part with less than this share of a row's CPU time is shown, and does not fail it.
SHARE = 0.1
#: The margin of wall time is this many times as large: other processes change it most.
WALL = 3.0


# ---- one boot, in a process of either version ----------------------------------------------------


def cpu_us(pid: int) -> tuple[float, float]:
    """CPU time of a process so far: of ZeroMQ's threads, and of the others."""
    of_zeromq = others = 0
    for thread in glob.glob(f"/proc/{pid}/task/*/"):
        try:
            name = Path(thread, "comm").read_text()
            ns = int(Path(thread, "schedstat").read_text().split()[0])
        except OSError:  # it has ended
            continue
        if name.startswith("ZMQ"):
            of_zeromq += ns
        else:
            others += ns
    return of_zeromq / 1e3, others / 1e3


def milli(_: float) -> None:
    """A millisecond on a CPU."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass


def doing(client: Any) -> dict[str, Callable[[int], object]]:
    """``OF_DAEMON`` as functions of the number of operations."""

    def round_trips(n: int) -> None:
        for _ in range(n):
            client.submit(math.sqrt, 4.0).result()

    def submit(n: int, fn: Any = math.sqrt, arg: float = 4.0) -> None:
        for future in [client.submit(fn, arg) for _ in range(n)]:
            future.result()

    def by_thirties(n: int) -> None:
        for _ in range(n // 30):
            submit(30)

    functions = (
        round_trips,
        submit,
        lambda n: concurrent.futures.wait([client.submit(math.sqrt, 4.0) for _ in range(n)]),
        by_thirties,
        lambda n: submit(n, milli),
        lambda n: submit(n, asyncio.sleep, 0),
        lambda n: sum(client.map(abs, range(n))),
    )
    return dict(zip(OF_DAEMON, functions, strict=True))


def serve_daemon() -> None:
    """Rounds of a daemon's rows, with the gmpd of the interpreter that runs this."""
    import gmpd

    with gmpd.Client() as client:
        status = client.call("status")
        pids = [status["pid"], *(p["pid"] for p in status["ps"])]
        run = doing(client)
        for row in asked():
            print(json.dumps(one_round(run[row], OF_DAEMON[row][0], pids)), flush=True)


def asked() -> Iterator[str]:
    """The rows that the measuring process wants, until it has enough."""
    print("ready", flush=True)
    for line in sys.stdin:
        yield line.strip()


def one_round(run: Callable[[int], object], n: int, pids: Sequence[int]) -> Figures:
    """``pids``: of the coordinator and its workers."""
    own_pid = os.getpid()
    before = [cpu_us(pid) for pid in (own_pid, *pids)]
    began, own = time.perf_counter(), time.process_time()
    run(n)
    wall, own = time.perf_counter() - began, time.process_time() - own
    spent = [
        (zeromq - zeromq0, others - others0)
        for (zeromq, others), (zeromq0, others0) in zip(
            [cpu_us(pid) for pid in (own_pid, *pids)], before, strict=True
        )
    ]
    figures = {
        # The kernel's account of a thread that runs is late, that of the whole process is not.
        "client": own * 1e6 - spent[0][0],
        "coordinator": spent[1][1],
        "workers": sum(others for _, others in spent[2:]),
        "zeromq": sum(zeromq for zeromq, _ in spent),
    }
    figures["cpu"] = sum(figures.values())
    return {part: us / n for part, us in {"wall": wall * 1e6, **figures}.items()}


def serve_runtime() -> None:
    """Rounds of a P's rows, without a daemon."""
    import gmpd

    # After it: this one has the directory above searched first, where another gmpd is.
    figures = importlib.import_module("runtime_figures")
    logging.disable(logging.WARNING)  # it holds its P for long on purpose

    async def run() -> None:
        tools = figures.Tools("gmpd")
        for row in asked():
            us = await getattr(figures, row)(tools, OF_RUNTIME[row][0]) / 1e3
            print(json.dumps({"client": us, "cpu": us}), flush=True)

    with asyncio.Runner(loop_factory=gmpd.new_event_loop) as runner:
        runner.run(run())


# ---- both of them --------------------------------------------------------------------------------


def measure(pythons: tuple[str, str], boots: int, rows: Sequence[str] = ROWS) -> dict[str, Any]:
    """Boots of two interpreters, the earlier version's first; the report."""
    from loadtests import machine

    described = machine.describe()
    seen = []
    for boot in range(boots):
        print(f"boot {boot + 1} of {boots}", file=sys.stderr)
        seen.append(one_pair(pythons, rows))
    return {"machine": described, "boots": boots, "rows": compared(seen)}


def one_pair(pythons: tuple[str, str], rows: Sequence[str]) -> tuple[Boot, Boot]:
    """A boot of each, in turn."""
    pair: tuple[Boot, Boot] = {}, {}
    for kind, own in (("daemon", OF_DAEMON), ("runtime", OF_RUNTIME)):
        if wanted := [row for row in rows if row in own]:
            with contextlib.ExitStack() as stack:
                rounds = [stack.enter_context(served(python, kind)) for python in pythons]
                for row in wanted:
                    for boot in pair:
                        boot[row] = []
                    for measure_one in rounds:
                        measure_one(row)  # what is done once only
                    for n in range(own[row][1]):
                        for which in (0, 1) if n % 2 else (1, 0):
                            pair[which][row].append(rounds[which](row))
    return pair


@contextlib.contextmanager
def served(python: str, kind: str) -> Iterator[Callable[[str], Figures]]:
    """A boot that finds no other daemon and no other gmpd: a function that has it run a round."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GMPD_", "PYTHON"))}
    with tempfile.TemporaryDirectory(prefix="gmpd-") as home, open(Path(home, "log"), "w+") as log:
        boot = subprocess.Popen(
            [python, __file__, kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=home,
            env={**env, "GMPD_RUNTIME_DIR": home},
        )  # fmt: skip
        assert boot.stdin is not None
        assert boot.stdout is not None

        def answer() -> str:
            assert boot.stdout is not None
            if not (line := boot.stdout.readline()):
                boot.wait()
                log.seek(0)
                raise SystemExit(f"a boot of {python} failed:\n{log.read()}")
            return line

        def one(row: str) -> Figures:
            assert boot.stdin is not None
            boot.stdin.write(f"{row}\n")
            boot.stdin.flush()
            figures: Figures = json.loads(answer())
            return figures

        try:
            answer()
            yield one
        finally:
            boot.stdin.close()
            boot.wait()
            boot.stdout.close()


def compared(pairs: Sequence[tuple[Boot, Boot]]) -> dict[str, dict[str, dict[str, float]]]:
    """For each part of each row medians, the ratio, its quartiles, and that of the best rounds."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for row, rounds in pairs[0][0].items():
        rows[row] = {}
        for part in rounds[0]:
            was, now, ratios = [], [], []
            for pair in pairs:
                old, new = ([each[part] for each in boot[row]] for boot in pair)
                was += old
                now += new
                # None: an amount below the resolution of the kernel's account.
                both = [n / o for o, n in zip(old, new, strict=True) if o > 0]
                ratios.append(statistics.median(both) if both else 1.0)
            low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            rows[row][part] = {
                "before": statistics.median(was),
                "after": statistics.median(now),
                "ratio": statistics.median(ratios),
                "low": low,
                "high": high,
                "best": min(now) / min(was) if min(was) > 0 else 1.0,
            }
    return rows


def slower(rows: dict[str, dict[str, dict[str, float]]], margin: float) -> list[str]:
    """Each row that takes longer than before by more than ``margin`` (0.1: a tenth), in words.

    By the median ratio and by the best rounds, and three quarters of the pairs have to agree that
    it takes longer at all.
    """
    found = []
    for row, parts in rows.items():
        least = SHARE * parts["cpu"]["before"]
        for part, seen in parts.items():
            most = 1 + margin * (WALL if part == "wall" else 1)
            by = min(seen["ratio"], seen["best"])
            if seen["before"] >= least and by > most and seen["low"] > 1:
                found.append(
                    f"{row}: {part} takes x{seen['ratio']:.3f} of before ({seen['before']:.3g} to"
                    f" {seen['after']:.3g} us; best rounds x{seen['best']:.3f}; three pairs of"
                    f" four above x{seen['low']:.3f}), allowed is x{most:.2f}"
                )
    return found


def table(report: dict[str, Any]) -> str:
    """For a person: for each row and part medians, the ratio, and the quartiles of the ratios."""
    lines = [f"{'us for each':<22}" + "".join(f"{part:>26}" for part in PARTS)]
    for row, parts in report["rows"].items():
        cells, quartiles = [], []
        for part in PARTS:
            seen = parts.get(part)
            cells.append(
                f"{seen['before']:.3g} > {seen['after']:.3g} x{seen['ratio']:.3f}" if seen else ""
            )
            quartiles.append(
                f"{seen['low']:.2f}-{seen['high']:.2f} best {seen['best']:.2f}" if seen else ""
            )
        lines.append(f"{row:<22}" + "".join(f"{cell:>26}" for cell in cells))
        lines.append(f"{'':<22}" + "".join(f"{cell:>26}" for cell in quartiles))
    return "\n".join(lines)


if __name__ == "__main__":
    {"daemon": serve_daemon, "runtime": serve_runtime}[sys.argv[1]]()
