"""gmpd and its peers at the same workloads, each peer in a virtual environment of its own.

    python loadtests/peers/run.py --record              # about 15 minutes on two quiet cores; then
    python loadtests/readme.py
    python loadtests/peers/run.py --quick               # about 5: is everything in order?
    python loadtests/peers/run.py --peers gmpd ray --only noop metg

Peers take turns, round by round, each round in fresh processes; the medians of the rounds are
recorded, with the number of jobs, the versions and the settings. A peer that hangs, or dies of a
workload, is ended and loses that cell alone. Every process that a peer started is found by a mark
in its environment, and ended. ``--record`` with ``--peers`` or ``--only`` keeps what was recorded
of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)

from loadtests import machine  # noqa: E402 - found from the line above
from loadtests.peers import environments, plot, processes, tasks  # noqa: E402
from loadtests.peers.environments import Missing  # noqa: E402
from loadtests.peers.peer import NAMES, Peer, adapter  # noqa: E402
from loadtests.peers.workloads import ALL, WORKLOADS, Cell  # noqa: E402

RESULTS = ROOT / "loadtests" / "results" / "peers.json"
ONE = Path(__file__).parent / "one.py"
CACHE = Path("~/.cache/gmpd-peers").expanduser()
#: The longest a cell may take in its own process (s), and the time after which it is ended.
LIMIT_S, GRACE_S = 20.0, 15.0
#: The longest the first result may take (s).
COLD_S = 60.0
#: The longest a peer may take to stop (s).
STOP_S = 25.0
#: Workloads with the same settings follow each other.
MODES = ("cpu", "io", "payload", "kill")

#: What was seen of one peer at one workload: a cell for each round.
Seen = dict[tuple[str, str], list[Cell]]


def burn_rate(procs: int) -> float:
    """Rounds of ``tasks.burn`` in a second on one core, while as many processes compute."""
    with multiprocessing.Pool(procs) as pool:
        pool.map(tasks.burn, [1000] * procs, chunksize=1)
        took = pool.map(timed_burn, [2_000_000] * procs, chunksize=1)
    return 2_000_000 / statistics.fmean(took)


def timed_burn(rounds: int) -> float:
    """CPU seconds, so that other work on the machine does not count."""
    began = time.thread_time()
    tasks.burn(rounds)
    return time.thread_time() - began


class Runner:
    """Starts peers, reads their cells, and ends what is left of them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.scale = 0.15 if args.quick else 1.0
        self.limit_s = LIMIT_S / 2 if args.quick else LIMIT_S
        self.pythons: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.seen: Seen = {}
        self.left: dict[str, int] = {}
        self.load: dict[str, float] = {}
        self.burn = 0.0

    def prepare(self) -> None:
        """Make the environments."""
        for name in self.args.peers:
            try:
                python = environments.python_of(name, adapter(name).packages, self.args.cache)
                self.pythons[name] = python
            except Missing as error:
                self.missing[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr)

    def cells(self, name: str, round_: int) -> list[list[str]]:
        """The workloads of one round, as a list for each process that is started."""
        peer = adapter(name)
        wanted = [
            each
            for each in sorted(WORKLOADS, key=lambda each: MODES.index(each.mode))
            if each.key in self.args.only and each.key not in peer.cannot
            if round_ == 0 or not each.once
        ]
        together = [each.key for each in wanted if not each.alone]
        alone = [[each.key] for each in wanted if each.alone]
        first = [together] if together or "cold" in self.args.only else []
        return [*first, *alone]

    def round(self, name: str, round_: int) -> None:
        """All that a peer does in one round."""
        self.load[name] = max(round(os.getloadavg()[0], 1), self.load.get(name, 0.0))
        for group in self.cells(name, round_):
            left, tries = group, 0
            while tries == 0 or (left and tries < 6):
                done, fatal = self.start(name, left, round_)
                left = [key for key in left if key not in done]
                tries += 1
                if fatal:
                    for key in left:
                        self.note(name, key, {"no": fatal})
                    break

    def note(self, name: str, key: str, cell: Cell) -> None:
        if key in ("stop", "") or key not in self.args.only:
            return
        self.seen.setdefault((name, key), []).append(cell)
        value = f"{cell['value']:,.2f} ({cell['n']:,})" if "value" in cell else "no"
        more = cell.get("no") or cell.get("note") or ""
        print(f"  {name:16} {key:11} {value:>24}  {more}", file=sys.stderr, flush=True)

    def start(self, name: str, keys: list[str], round_: int) -> tuple[set[str], str]:
        """One process with these workloads: those that are over, and why none can follow."""
        peer = adapter(name)
        mark = uuid.uuid4().hex
        with contextlib.ExitStack() as stack:
            place = Path(tempfile.mkdtemp(prefix="gp-"))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            env = self._env(peer, place, mark)
            alone = bool(keys) and ALL[keys[-1]].alone
            stack.callback(self._clean, name, mark, alone)
            if peer.needs_redis:
                try:
                    env["PEERS_REDIS"] = stack.enter_context(environments.redis(place, env))
                except Missing as error:
                    return set(), str(error)
            words = [
                self.pythons[name], str(ONE), name, *keys,
                "--procs", str(self.args.procs), "--burn", str(self.burn),
                "--began", str(time.monotonic()), "--scale", str(self.scale),
                "--limit", str(self.limit_s), "--seed", str(round_ + 1),
            ]  # fmt: skip
            log = stack.enter_context(open(self.args.log or os.devnull, "a"))
            process = subprocess.Popen(
                words, env=env, stdout=subprocess.PIPE, stderr=log, cwd=place,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            try:
                return self._read(name, process, round_)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
                for path in Path("/dev/shm").glob(f"sem.loky-{process.pid}-*"):
                    path.unlink(missing_ok=True)

    def _env(self, peer: type[Peer], place: Path, mark: str) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("GMPD_")}
        env.pop("VIRTUAL_ENV", None)
        return env | {
            "PYTHONPATH": str(ROOT), "TMPDIR": str(place), "PEERS_PLACE": str(place),
            "JOBLIB_TEMP_FOLDER": str(place), processes.MARK: mark,
        }  # fmt: skip

    def _clean(self, name: str, mark: str, alone: bool) -> None:
        count = processes.end_marked(mark, 0.0 if alone else 3.0)
        if not alone:
            self.left[name] = max(count, self.left.get(name, 0))

    def _read(
        self, name: str, process: subprocess.Popen[bytes], round_: int
    ) -> tuple[set[str], str]:
        done: set[str] = set()
        current, told = "cold", Lines(process)
        while line := told.next(self._patience(current)):
            said = json.loads(line)
            if "begin" in said:
                current = said["begin"]
            elif "end" in said:
                if current != "cold" or len(self.seen.get((name, current), ())) <= round_:
                    self.note(name, current, said["cell"])
                done.add(current)
                if current == "stop":  # forks of it may hold the pipe for long
                    return done, ""
                current = ""
        if current in ("", "stop"):
            return done, ""
        if line is None:
            why = f"hung for {self._patience(current):.0f} s, and was ended"
        else:
            why = f"its program ended with exit code {process.wait(10)}"
        self.note(name, current, {"no": why})
        return done | {current}, why if current == "cold" else ""

    def _patience(self, current: str) -> float:
        if current == "stop":
            return STOP_S
        if current in ("cold", ""):
            return COLD_S + GRACE_S
        return (2 if current == "backlog" else 1) * self.limit_s + GRACE_S


class Lines:
    """The lines that a process prints."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process, self._fd = process, process.stdout.fileno()
        self._held = b""

    def next(self, patience: float) -> bytes | None:
        """One more; empty at the end. None if there is none within ``patience`` seconds."""
        ends = time.monotonic() + patience
        while b"\n" not in self._held:
            over = self._process.poll() is not None  # while a child of it may hold the pipe
            if not select.select([self._fd], [], [], 0.0 if over else 0.3)[0]:
                if over:
                    return b""
                if time.monotonic() > ends:
                    return None
                continue
            data = os.read(self._fd, 65536)
            if not data:
                return b""
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line


def summary(cells: Sequence[Cell]) -> Cell:
    """One cell of the table from those of the rounds."""
    good = [cell for cell in cells if "value" in cell]
    if not good:
        return {"no": clean(cells[-1]["no"])}
    values = [value for cell in good for value in cell.get("repeats", [cell["value"]])]
    found: Cell = {
        "median": _short(statistics.median(values)),
        "low": _short(min(values)),
        "high": _short(max(values)),
        "rounds": len(values),
        "n": int(statistics.median(cell["n"] for cell in good)),
    }
    notes = [cell["note"] for cell in good if "note" in cell]
    if notes:
        found["note"] = clean(notes[-1])
    if len(good) < len(cells):
        failed = [cell["no"] for cell in cells if "no" in cell]
        found["failed"] = f"{len(failed)} of {len(cells)} rounds: {clean(failed[-1])}"
    return found


def clean(text: str) -> str:
    """Without paths of this machine."""
    return re.sub(r"(?<!\w)/\S+", "…", text).replace("|", "/")


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def report(runner: Runner, args: argparse.Namespace) -> dict[str, Any]:
    """All that is recorded."""
    peers = {}
    for name in args.peers:
        peer = adapter(name)
        has = environments.versions(runner.pythons[name]) if name in runner.pythons else {}
        built = environments.variant(runner.pythons[name]) if "gmpd" in has else ""
        peers[name] = {
            "title": peer.title,
            "version": has.get(peer.version_of, ""),
            "packages": {key: has[key] for key in sorted(has) if key in _names(peer)},
            "settings": "; ".join(each for each in (peer.settings, built) if each),
            "coroutines": peer.coroutines,
            "load": runner.load.get(name, 0.0),
            "left_behind": runner.left.get(name, 0),
        }
    cells: dict[str, dict[str, Cell]] = {}
    for key in args.only:
        for name in args.peers:
            peer = adapter(name)
            if name in runner.missing:
                cell: Cell = {"no": clean(runner.missing[name])}
            elif key in peer.cannot:
                cell = {"no": peer.cannot[key]}
            elif (name, key) in runner.seen:
                cell = summary(runner.seen[name, key])
            else:
                continue
            if key in peer.notes:
                cell["how"] = peer.notes[key]
            cells.setdefault(key, {})[name] = cell
    return {"peers": peers, "cells": cells}


def _names(peer: type[Peer]) -> set[str]:
    return {re.split(r"[\[<>=]", each)[0] for each in peer.packages}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new record, with the old one's cells and peers that were not measured again."""
    return {
        **new,
        "quick": old["quick"] or new["quick"],
        "peers": {
            name: new["peers"].get(name) or old["peers"][name]
            for name in NAMES
            if name in new["peers"] or name in old["peers"]
        },
        "cells": {
            key: old["cells"].get(key, {}) | new["cells"].get(key, {})
            for key in ALL
            if key in old["cells"] or key in new["cells"]
        },
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=NAMES, default=list(NAMES), metavar="PEER")
    parser.add_argument("--only", nargs="+", choices=list(ALL), default=list(ALL), metavar="KEY")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=16, help="begin no round that ends later")
    parser.add_argument("--procs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="one round, a seventh of the work")
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    parser.add_argument("--output", type=Path, help="write the report there")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where environments are kept")
    parser.add_argument("--log", type=Path, help="append what the peers print")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    return args


def main() -> None:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after peers were ended
    runner = Runner(args)
    runner.prepare()
    described = machine.describe()
    began = time.monotonic()
    there = [name for name in args.peers if name in runner.pythons]
    took = 0.0
    for round_ in range(args.rounds):
        # The first one has the workloads of which there is one round.
        if round_ and time.monotonic() - began + took * 0.65 ** (round_ == 1) > args.minutes * 60:
            print(f"{round_} rounds: another would pass --minutes", file=sys.stderr)
            args.rounds = round_
            break
        took = time.monotonic()
        runner.burn = burn_rate(args.procs)
        turn = round_ * max(1, len(there) // args.rounds) % max(1, len(there))
        for name in [*there[turn:], *there[:turn]]:
            at = time.monotonic()
            runner.round(name, round_)
            print(f"round {round_ + 1}, {name}: {time.monotonic() - at:.1f} s", file=sys.stderr)
        took = time.monotonic() - took
    found = {
        "machine": described,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rounds": args.rounds,
        "procs": args.procs,
        "quick": args.quick,
        "seconds": round(time.monotonic() - began),
        "load_after": round(os.getloadavg()[0], 1),
        "redis": environments.redis_version(),
        **report(runner, args),
    }
    if args.record:
        if RESULTS.exists() and (set(args.only) < set(ALL) or set(args.peers) < set(NAMES)):
            found = merged(json.loads(RESULTS.read_text()), found)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        try:
            plot.draw(found, plot.PICTURE)
        except ImportError:
            print("no picture: pip install '.[load]' first", file=sys.stderr)
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['seconds']:,} s", file=sys.stderr)


if __name__ == "__main__":
    main()
