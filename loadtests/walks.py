"""The files and functions of gmpd that one event passes through, in all processes together.

    python loadtests/walks.py

Four walks: a job from submit to result, a worker's death until its P is up again, eight values sent
to a channel of another worker, a hand-off with the job that runs meanwhile. Each is walked some
times between two marks; a function counts if all of these saw it, so that calls which a timer or
the garbage collector adds do not. Another version is counted by its own interpreter:

    other/bin/python loadtests/walks.py

The walk goes on until nothing more is called: after the result come the acknowledgement, and the
look of each process at itself before it sleeps. So files and functions are counted twice, also
those called until the result was there. ``lines`` are those of the functions, which a reader of the
walk reads; ``largest`` is the file with the most lines.

``--list`` names the functions in the order of their first calls; ``--output`` keeps the table and
the files as JSON; ``--record`` keeps them as ``loadtests/results/walks.json``, beside the table of
another version that ``--then`` names.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

#: The walk is over when no call was seen for this time, seconds. The start of a worker is longer.
QUIET_S = 0.4
QUIET_AFTER_DEATH_S = 2.0
TIMES = 5
NAP_S = 0.2
VALUES = 8
#: Started at once, so that the other P takes some.
CHILDREN = 4
RESULT = Path(__file__).parent / "results" / "walks.json"


class Call(NamedTuple):
    """One call, as ``walk_hook`` writes it."""

    pid: int
    role: str
    file: str
    line: int
    name: str
    #: Whether the result was there, or the worker's death known.
    is_after: bool


# -- jobs ----------------------------------------------------------------------------------------


def add(a: int, b: int) -> int:
    return a + b


def nap(seconds: float) -> None:
    time.sleep(seconds)


def pid() -> int:
    return os.getpid()


async def forever() -> None:
    await importlib.import_module("asyncio").sleep(3600)


async def sender(out: Any, values: int) -> None:
    import gmpd

    await out.send(os.getpid())
    await gmpd.sleep(2 * QUIET_S)
    for value in range(values):
        await out.send(value)


async def receiver(values: int) -> None:
    """A child in another worker sends; the walk is from its first value on."""
    import gmpd

    hook = importlib.import_module("walk_hook")
    out: Any = None
    moved: Any = None
    while out is None:
        children = []
        for _ in range(CHILDREN):
            made: Any = gmpd.Chan()
            children.append((gmpd.go(sender, made, values), made))
        time.sleep(0.05)  # P is busy, and the other one idle
        for child, made in children:
            if await made.recv() == os.getpid() or out is not None:
                child.cancel()
            else:
                out, moved = made, child
    await gmpd.sleep(QUIET_S)
    hook.mark(True)
    for _ in range(values):
        await out.recv()
    await moved


# -- walks ---------------------------------------------------------------------------------------


class Walks:
    """Runs each walk against daemons of its own; ``directory`` is where the calls are written."""

    def __init__(self, directory: Path, times: int) -> None:
        self._calls = directory / "calls"
        self._times = times
        self._mark = importlib.import_module("walk_hook").mark

    def _walk(self, act: Callable[[], object], quiet_s: float = QUIET_S) -> list[Call]:
        """The calls of ``act`` and of what it sets off, until nothing more is called."""
        self._calls.write_bytes(b"")
        act()
        result = self._calls.stat().st_size
        size, since = 0, time.monotonic()
        while time.monotonic() - since < quiet_s:
            time.sleep(0.02)
            if (now := self._calls.stat().st_size) != size:
                size, since = now, time.monotonic()
        self._mark(False)
        written, calls = self._calls.read_bytes(), []
        for text, is_after in ((written[:result], False), (written[result:], True)):
            for line in text.decode().splitlines():
                pid, role, file, at, name = line.split(" ", 4)
                calls.append(Call(int(pid), role, file, int(at), name, is_after))
        return calls

    def submit(self) -> list[list[Call]]:
        import gmpd

        with gmpd.Client() as client:
            for _ in range(20):
                client.submit(add, 1, 2).result()
            time.sleep(QUIET_S)

            def act() -> None:
                self._mark(True)
                client.submit(add, 1, 2).result()

            return [self._walk(act) for _ in range(self._times)]

    def death(self) -> list[list[Call]]:
        import gmpd

        found = []
        for _ in range(self._times):
            with gmpd.Client() as client:
                worker = client.submit(pid).result()
                job = client.submit(forever)
                time.sleep(QUIET_S)

                def act(worker: int = worker, job: Any = job) -> None:
                    self._mark(True)
                    os.kill(worker, signal.SIGKILL)
                    job.exception()

                calls = self._walk(act, QUIET_AFTER_DEATH_S)
                found.append([call for call in calls if call.role != "worker"])
        return found

    def channel(self) -> list[list[Call]]:
        import gmpd

        with gmpd.Client() as client:
            client.submit(receiver, 1).result()
            self._mark(False)
            time.sleep(QUIET_S)

            def act() -> None:
                client.submit(receiver, VALUES).result()

            return [self._walk(act) for _ in range(self._times)]

    def handoff(self) -> list[list[Call]]:
        import gmpd

        with gmpd.Client() as client:
            for _ in range(20):
                client.submit(add, 1, 2).result()
            client.submit(nap, 0).result()
            time.sleep(QUIET_S)

            def act() -> None:
                self._mark(True)
                both = client.submit(nap, NAP_S), client.submit(add, 1, 2)
                for each in both:
                    each.result()

            return [self._walk(act) for _ in range(self._times)]


#: Each walk, with the Ps that its daemons have.
WALKS: dict[str, tuple[Callable[[Walks], list[list[Call]]], int]] = {
    "submit to result": (Walks.submit, 1),
    "a worker's death": (Walks.death, 1),
    "channel send, 8 values": (Walks.channel, 2),
    "hand-off": (Walks.handoff, 1),
}


Place = tuple[str, str, int, str]  # process, file, first line, function


def usual(runs: list[list[Call]], *, to_result: bool = False) -> list[Place]:
    """The places that every run saw, in the order of their first calls."""
    seen: Counter[Place] = Counter()
    first: dict[Place, int] = {}
    for calls in runs:
        of_run: set[Place] = set()
        for at, call in enumerate(calls):
            if not (to_result and call.is_after):
                place = call.role, call.file, call.line, call.name
                of_run.add(place)
                first.setdefault(place, at)
        seen.update(of_run)
    return sorted((p for p, times in seen.items() if times == len(runs)), key=first.__getitem__)


class Sources:
    """The lines of gmpd's files and functions, of the version that runs here."""

    def __init__(self) -> None:
        self._home = Path(importlib.import_module("gmpd").__file__ or "").parent
        self._ends: dict[str, dict[int, int]] = {}

    def lines(self, file: str) -> int:
        return len((self._home / file).read_text().splitlines())

    def lines_of(self, file: str, line: int) -> int:
        """Of the function that begins in this line, or whose decorators do."""
        if file not in self._ends:
            self._ends[file] = {}
            for node in ast.walk(ast.parse((self._home / file).read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    decorators = getattr(node, "decorator_list", [])
                    begin = decorators[0].lineno if decorators else node.lineno
                    self._ends[file][begin] = (node.end_lineno or node.lineno) - begin + 1
        return self._ends[file].get(line, 0)


def counts(places: list[Place]) -> dict[str, int]:
    return {
        "files": len({file for _, file, _, _ in places}),
        "functions": len({(file, name) for _, file, _, name in places}),
    }


def row(runs: list[list[Call]], sources: Sources) -> dict[str, Any]:
    """Of a walk: files, functions and lines, all together and by process; calls, the median."""
    places = usual(runs)
    files = {file: sources.lines(file) for _, file, _, _ in places}
    functions = {(file, line) for _, file, line, _ in places}
    roles = sorted({role for role, _, _, _ in places})
    return {
        **counts(places),
        "to_result": counts(usual(runs, to_result=True)),
        "calls": sorted(map(len, runs))[len(runs) // 2],
        "lines": sum(sources.lines_of(file, line) for file, line in functions),
        "largest": max(files.values()),
        "by_process": {
            role: counts([place for place in places if place[0] == role]) for role in roles
        },
        "lines_of_files": dict(sorted(files.items())),
    }


def main() -> None:
    """Start a process that is followed for each walk, and print what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=TIMES, help="walks of each kind")
    parser.add_argument("--list", action="store_true", help="name the functions, too")
    parser.add_argument("--only", choices=WALKS, help="one walk")
    parser.add_argument("--output", help="a file for the table, as JSON")
    parser.add_argument("--record", action="store_true", help="keep it in loadtests/results")
    parser.add_argument("--then", help="with --record: the table of another version")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        walk, _ = WALKS[options.here]
        directory = Path(os.environ["WALKS_DIR"])
        runs = walk(Walks(directory, options.times))
        (directory / "found").write_text(json.dumps(runs))
        return
    found: dict[str, Any] = {}
    sources = Sources()
    for name in WALKS if options.only is None else [options.only]:
        runs = followed(name, options.times)
        found[name] = row(runs, sources)
        show(name, found[name], usual(runs) if options.list else [])
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n")
    if options.record:
        then = json.loads(Path(options.then).read_text()) if options.then else None
        RESULT.write_text(json.dumps({"now": found, "then": then}, indent=1) + "\n")


def followed(name: str, times: int) -> list[list[Call]]:
    """The runs of one walk, by processes that load the hook."""
    home = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="walks") as made:
        directory = Path(made)
        (directory / "mark").write_bytes(b"\0")
        (directory / "calls").write_bytes(b"")
        (directory / "run").mkdir(0o700)
        (directory / "sitecustomize.py").write_text("import walk_hook\nwalk_hook.install()\n")
        env = os.environ | {
            "WALKS_DIR": made,
            "PYTHONPATH": os.pathsep.join((made, str(home))),
            "GMPD_RUNTIME_DIR": str(directory / "run"),
            "GMPD_DAEMON__PROCS": str(WALKS[name][1]),
        }
        command = [sys.executable, __file__, "--here", name, "--times", str(times)]
        subprocess.run(command, env=env, check=True)
        return [
            [Call(*call) for call in run] for run in json.loads((directory / "found").read_text())
        ]


def show(name: str, counted: dict[str, Any], places: list[Place]) -> None:
    """One line of the table, and the functions if they are wanted."""
    by = ", ".join(
        f"{role} {each['files']}/{each['functions']}"
        for role, each in counted["by_process"].items()
    )
    print(
        f"{name:<24}{counted['files']:>4} files{counted['functions']:>5} functions"
        f"{counted['lines']:>6} lines{counted['calls']:>7} calls   ({by}); to the result"
        f" {counted['to_result']['files']}/{counted['to_result']['functions']};"
        f" largest file {counted['largest']} lines"
    )
    for role, file, _, function in places:
        print(f"    {role:<12}{file:<28}{function}")


if __name__ == "__main__":
    # As a module: its jobs are then found by name, as those of most programs.
    importlib.import_module("walks").main()
