"""Durable jobs while everything is killed: no acknowledged one is lost, none runs twice at once.

    python loadtests/chaos.py --rounds 60 --output loadtests/results/chaos.json

Each round has a store of its own, a daemon with four workers, and clients, all real processes.
Workers, the coordinator and clients are killed and stopped at random and at the worst moments: just
after an acknowledgement, in a recovery, in a drain, two at once. Jobs, clients and this script
write ledgers. After the round all comes to rest, every acknowledged job is looked up, the daemon
ends, and ``chaos_checker`` compares. The output accumulates: later rounds are added to it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import heapq
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gmpd.compiled import VARIABLE as CORE  # noqa: E402 - found from the line above
from loadtests import machine  # noqa: E402
from loadtests.chaos_checker import Columns, Ledger, check  # noqa: E402
from loadtests.chaos_forks import Fork, Forker  # noqa: E402
from loadtests.chaos_jobs import VARIABLE  # noqa: E402
from loadtests.chaos_lookup import LookUp  # noqa: E402

WORKERS, CLIENTS = 4, 2
#: What is done, how often in a second on average, unless ``--rate`` changes it. Each waits for a
#: victim that is at work, so that a slow machine is not killed before it has begun.
RATES = {
    "kill_worker": 5.0, "stop_worker": 0.1, "end_worker": 0.05,
    "kill_coordinator": 0.06, "kill_at_ack": 0.05, "kill_both": 0.03, "kill_all": 0.01,
    "drain": 0.02, "stop_coordinator": 0.02,
    "kill_client": 0.5, "stop_client": 0.1,
}  # fmt: skip
#: Before a victim is at work it is chosen all the same this often.
EARLY = 0.002
#: How often a victim that is not at work is looked at again (s).
LOOK_S = 0.1
#: The coordinator that follows a killed one is killed in its recovery this often.
AGAIN = 0.2
#: All comes to rest within this time, or it hangs (s).
REST_S = 600.0
#: A round on a busy machine is this much longer, at most, until one of each kind was killed (s).
LATE_S = 120.0
#: What a store keeps in its directory.
STORE = {"jobs.sqlite", "jobs.commits", "jobs.ballast"}
#: Findings that are kept of each column.
KEPT = 20


class Killer:
    """One round: starts the processes, and kills them."""

    def __init__(self, seed: int, seconds: float, directory: Path, rates: dict[str, float]) -> None:
        self.dice = random.Random(seed)
        self.seed, self.seconds, self.rates = seed, seconds, rates
        self.directory = directory
        self.ledgers = directory / "ledgers"
        self.ledgers.mkdir()
        self.ledger = (self.ledgers / "killer").open("a", buffering=1)
        self.killed: Counter[str] = Counter()
        self.env = {
            **{k: v for k, v in os.environ.items() if k == CORE or not k.startswith("GMPD_")},
            "GMPD_RUNTIME_DIR": str(directory / "run"),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "GMPD_DAEMON__PROCS": str(WORKERS),
            # Workers die all the time here: another is wanted at once.
            "GMPD_RESTART__BACKOFF_MIN": "10ms",
            "GMPD_RESTART__BACKOFF_MAX": "100ms",
            "GMPD_RESTART__STORM_DEATHS": "1000000",
            "GMPD_DAEMON__START_TIMEOUT": f"{REST_S:g}s",  # a long run has what others leave
            "GMPD_CLIENT__LIVENESS": f"{REST_S:g}s",
            "GMPD_CLIENT__AUTOSTART": "false",
            "PYTHONPATH": str(ROOT),
            VARIABLE: str(self.ledgers),
        }
        # Hundreds of Pythons are started: without bytecode files each would compile its imports.
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        self.due: list[tuple[float, int, Callable[[], object]]] = []
        self.ties = 0
        self.clients: list[Fork] = []
        self.fell: list[str] = []
        #: It was told to end.
        self.ending = False
        #: How far the ledgers of clients were read, and which clients were told since the
        #: coordinator began that jobs are stored.
        self.read: dict[Path, int] = {}
        self.told: set[int] = set()
        self.looked = 0.0
        log = directory / "clients.log"
        self.forker = Forker("loadtests.chaos_client", self.env, directory, log)
        self.daemon = self.start_daemon()

    # -- processes

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """The next coordinator."""
        self.ending = False
        self.look_at_clients()
        self.told = set()
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "gmpd.cli", "serve"],
                env=self.env, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    def start_client(self) -> Fork:
        """One more client."""
        seed = f"{self.seed}.{self.dice.getrandbits(24):x}"
        return self.forker.fork(self.env["GMPD_RUNTIME_DIR"], str(self.ledgers), seed)

    def workers(self) -> list[int]:
        """Pids of the workers, as far as they have begun."""
        try:
            tasks = Path(f"/proc/{self.daemon.pid}/task")
            children = " ".join((task / "children").read_text() for task in tasks.iterdir())
        except OSError:  # it has ended
            return []
        return [pid for pid in map(int, children.split()) if _is_worker(pid)]

    def working(self) -> list[int]:
        """Pids of the workers that have begun a job."""
        begun = {name.partition(".")[0] for name in os.listdir(self.ledgers)}
        return [pid for pid in self.workers() if f"worker-{pid}" in begun]

    def look_at_clients(self) -> None:
        """Note which of them were told that jobs are stored."""
        self.looked = time.monotonic()
        for path in (path for each in self.clients for path in self.ledgers.glob(f"*-{each.pid}")):
            with path.open("rb") as file:
                file.seek(self.read.get(path, 0))
                new = file.read()
            self.read[path] = self.read.get(path, 0) + len(new)
            if b"ok " in new:
                self.told.add(int(path.name.rpartition("-")[2]))

    # -- what is done to them: False when it has to wait

    def early(self) -> bool:
        """Whether a victim is taken that is not at work yet."""
        return self.dice.random() < EARLY

    def kill(self, who: str, pid: int, sign: int = signal.SIGKILL) -> None:
        """Note it, then do it."""
        self.ledger.write(f"kill {who} {pid} {time.monotonic_ns()}\n")
        os.kill(pid, sign)
        self.killed[who] += 1

    def took_effect(self, pid: int, sign: int = signal.SIGKILL) -> None:
        """From now on this process executes nothing."""
        if sign == signal.SIGKILL:
            self.ledger.write(f"dead {pid} {time.monotonic_ns()}\n")

    def kill_a_worker(self, sign: int = signal.SIGKILL) -> bool:
        """One that is still there when the signal is sent: a number may be given to another."""
        workers = self.workers() if self.early() else self.working()
        if not workers:
            return False
        pid = self.dice.choice(workers)
        with self.handle_of(pid) as handle:
            if handle is not None:
                self.ledger.write(f"kill worker {pid} {time.monotonic_ns()}\n")
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, sign)
                    self.took_effect(pid, sign)
                    self.killed["worker" if sign == signal.SIGKILL else "worker told to end"] += 1
        return True

    @contextlib.contextmanager
    def handle_of(self, pid: int) -> Iterator[int | None]:
        """A handle of a worker; None when it has ended."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield handle if pid in self.workers() else None
        finally:
            os.close(handle)

    def kill_worker(self) -> bool:
        return self.kill_a_worker()

    def end_worker(self) -> bool:
        """As an operator may."""
        return self.kill_a_worker(signal.SIGTERM)

    def stop_worker(self) -> bool:
        """For a moment; some are killed then."""
        workers = self.working()
        if not workers:
            return False
        pid = self.dice.choice(workers)
        with self.handle_of(pid) as handle:
            if handle is None:
                return False
            handle = os.dup(handle)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
            self.killed["worker stopped"] += 1
        kills = self.dice.random() < 0.3

        def go_on() -> None:
            with contextlib.suppress(ProcessLookupError):
                if kills:
                    self.ledger.write(f"kill worker {pid} {time.monotonic_ns()}\n")
                signal.pidfd_send_signal(handle, signal.SIGKILL if kills else signal.SIGCONT)
                if kills:
                    self.took_effect(pid)
                self.killed["worker"] += kills
            os.close(handle)

        self.after(self.dice.uniform(0.05, 2), go_on)
        return True

    @property
    def serves(self) -> bool:
        """Whether this coordinator has taken jobs and runs some; now and then that is not waited
        for."""
        if self.daemon.poll() is not None:
            return False
        return self.early() or bool(self.told and self.working())

    def kill_coordinator(self) -> bool:
        return self.serves and self.restart()

    def restart(self) -> bool:
        """Kill the coordinator, and start the next one, which may die in its recovery."""
        if self.daemon.poll() is None:
            self.kill("coordinator", self.daemon.pid)
        self.daemon.wait(60)
        self.took_effect(self.daemon.pid)  # its workers have their signals, too
        self.daemon = self.start_daemon()
        if self.dice.random() < AGAIN:
            self.after(self.dice.random() * 2, self.restart)
        return True

    def kill_at_ack(self) -> bool:
        """At the moment after some client was told that its jobs are on disk."""
        files = list(self.ledgers.glob("client-*"))
        if not files or not self.serves:
            return False
        with max(files, key=lambda file: file.stat().st_mtime_ns).open("rb") as file:
            file.seek(0, os.SEEK_END)
            end = time.monotonic() + 0.5
            while b"ok " not in file.read() and time.monotonic() < end:
                time.sleep(0.0005)
        self.killed["of these at an acknowledgement"] += 1
        return self.restart()

    def kill_both(self) -> bool:
        return self.serves and self.kill_a_worker() and self.restart()

    def kill_all(self) -> bool:
        """Every process at once, as when the machine is short of memory."""
        if not self.serves:
            return False
        for client in self.clients:
            self.kill_this(client)
        for _ in self.workers():
            self.kill_a_worker()
        return self.restart()

    def drain(self) -> bool:
        """SIGTERM, and often SIGKILL before it has drained."""
        if not self.serves or self.ending:
            return False
        self.ending = True
        # What it drains may have to be run again, if it takes too long.
        self.ledger.write(f"kill coordinator {self.daemon.pid} {time.monotonic_ns()}\n")
        self.daemon.send_signal(signal.SIGTERM)
        self.killed["coordinator told to end"] += 1
        if self.dice.random() < 0.6:
            self.after(self.dice.random() * 0.5, self.restart)
        return True

    def stop_coordinator(self) -> bool:
        """For a moment; some are killed then."""
        if not self.serves:
            return False
        daemon = self.daemon
        daemon.send_signal(signal.SIGSTOP)
        self.killed["coordinator stopped"] += 1
        kills = self.dice.random() < 0.3

        def go_on() -> None:
            if daemon is self.daemon:
                daemon.send_signal(signal.SIGCONT)
                if kills:
                    self.restart()

        self.after(self.dice.uniform(0.1, 3), go_on)
        return True

    def kill_client(self) -> bool:
        """One that has had jobs stored, mostly."""
        victims = [client for client in self.clients if client.pid in self.told or self.early()]
        if victims:
            self.kill_this(self.dice.choice(victims))
        return bool(victims)

    def kill_this(self, client: Fork) -> None:
        """One client; another one takes its place."""
        if client.poll() is None:
            self.kill("client", client.pid)
            client.wait(60)

    def stop_client(self) -> bool:
        """For a moment: it reads nothing."""
        if not self.clients:
            return False
        client = self.dice.choice(self.clients)
        client.send_signal(signal.SIGSTOP)
        self.killed["client stopped"] += 1
        self.after(self.dice.uniform(0.1, 3), lambda: client.send_signal(signal.SIGCONT))
        return True

    # -- a round

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Have it done then."""
        self.ties += 1
        heapq.heappush(self.due, (time.monotonic() + seconds, self.ties, what))

    def repeat(self, name: str) -> None:
        """Have it done at random moments from now on."""

        def do() -> None:
            done = getattr(self, name)()
            self.after(self.dice.expovariate(self.rates[name]) if done else LOOK_S, do)

        self.after(self.dice.expovariate(self.rates[name]), do)

    def run(self) -> Columns:
        """All of it."""
        for name in (name for name, rate in self.rates.items() if rate):
            self.repeat(name)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end or (not self.has_killed and time.monotonic() < end + LATE_S):
            self.keep_alive()
            if time.monotonic() > self.looked + LOOK_S:
                self.look_at_clients()
            if self.due and self.due[0][0] <= time.monotonic():
                heapq.heappop(self.due)[2]()
            else:
                time.sleep(0.01)
        self.come_to_rest()
        lines = [
            line
            for path in self.ledgers.iterdir()
            if path.name.startswith(("worker-", "client-", "killer"))
            for line in path.read_text().splitlines()
        ]
        columns = check(Ledger(lines))
        columns.found["hung"] += self.fell
        return columns

    @property
    def has_killed(self) -> bool:
        """Whether one of each kind was killed."""
        return all(self.killed[who] for who in ("worker", "coordinator", "client"))

    def keep_daemon(self) -> None:
        """A coordinator that has ended is started again, as systemd would."""
        code = self.daemon.poll()
        if code is not None:
            if code and not self.ending:
                self.fell.append(f"the coordinator ended by itself with {code}")
            self.took_effect(self.daemon.pid)
            self.daemon = self.start_daemon()

    def keep_alive(self) -> None:
        """Restart the daemon and the clients that have ended."""
        self.keep_daemon()
        for client in [client for client in self.clients if client.poll() is not None]:
            if client.returncode not in (0, -signal.SIGKILL):
                self.fell.append(f"a client ended with {client.returncode}: see clients.log")
            self.clients.remove(client)
        while len(self.clients) < CLIENTS:
            self.clients.append(self.start_client())

    def come_to_rest(self) -> None:
        """No more faults; what was acknowledged ends; then all processes do."""
        with contextlib.suppress(ProcessLookupError):
            for pid in [self.daemon.pid, *self.workers(), *(c.pid for c in self.clients)]:
                os.kill(pid, signal.SIGCONT)
        while self.due:  # open handles of stopped workers
            _, _, what = heapq.heappop(self.due)
            if what.__name__ == "go_on":
                what()
        if self.daemon.poll() is not None or self.ending:
            self.daemon.wait(60)
            self.took_effect(self.daemon.pid)
            self.daemon = self.start_daemon()
        (self.ledgers / "stop").touch()
        end = time.monotonic() + REST_S
        for client in self.clients:
            try:
                client.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                client.send_signal(signal.SIGABRT)  # its stacks are in the log; no kill is noted
                client.wait(60)
        self.forker.close()
        self.look_up()
        self.daemon.send_signal(signal.SIGTERM)
        try:
            code = self.daemon.wait(60)
            if code:
                self.fell.append(f"the drained coordinator ended with {code}")
        except subprocess.TimeoutExpired:
            self.fell.append("the coordinator did not drain within 60 s")
            self.daemon.send_signal(signal.SIGABRT)
            self.daemon.wait(60)
        self.look_for_leaks()

    def look_up(self) -> None:
        """Write the end of every acknowledged job; a daemon that ends meanwhile has a next one."""
        look = LookUp(self.env["GMPD_RUNTIME_DIR"], self.ledgers, self.dice, self.keep_daemon)
        for line in asyncio.run(look.run(REST_S)):
            self.ledger.write(line)
        self.fell += look.fell

    def look_for_leaks(self) -> None:
        """Processes and files that are left."""
        mine = f"{VARIABLE}={self.ledgers}".encode()
        end = time.monotonic() + 5
        while left := [*_with_environment(mine)]:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        for pid, command in left:
            self.ledger.write(f"leaked process {pid} {command}\n")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run = Path(self.env["GMPD_RUNTIME_DIR"])
        for path in run.iterdir() if run.exists() else ():
            self.ledger.write(f"leaked file {path.name} in the runtime directory\n")
        state = Path(self.env["GMPD_STATE_DIR"])
        for path in state.iterdir() if state.exists() else ():
            if path.name not in STORE:
                self.ledger.write(f"leaked file {path.name} in the state directory\n")

    def close(self) -> None:
        """Also after an error: nothing goes on."""
        processes: list[subprocess.Popen[bytes] | Fork] = [self.daemon, *self.clients]
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait(60)
        self.forker.close()
        self.ledger.close()


def _is_worker(pid: int) -> bool:
    try:
        return b"gmpd.daemon.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended just now
        return False


def _with_environment(wanted: bytes) -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                command = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                yield int(path.parent.name), command
        except OSError:  # it ended, or is another user's
            continue


def one_round(
    seed: int, seconds: float, keep: Path | None, rates: dict[str, float] = RATES
) -> dict[str, Any]:
    """A round in a directory of its own, which is kept when something was found."""
    directory = Path(tempfile.mkdtemp(prefix="gmpd-chaos-"))
    killer = Killer(seed, seconds, directory, rates)
    try:
        columns = killer.run()
    finally:
        killer.close()
        if keep is not None and (sys.exc_info()[0] or not columns.is_clean):
            no_sockets = shutil.ignore_patterns("*.sock")
            shutil.copytree(directory, keep / f"round-{seed}", ignore=no_sockets)
        shutil.rmtree(directory, ignore_errors=True)
    print(f"round {seed}: {columns} | {dict(killer.killed)}", flush=True)
    for column, found in columns.found.items():
        for text in found[:KEPT]:
            print(f"  {column}: {text}", flush=True)
    return {
        "jobs": dict(columns.counts),
        "killed": dict(killer.killed),
        "found": {name: len(found) for name, found in columns.found.items()},
    }


def add(one: dict[str, Any], output: Path, described: dict[str, Any]) -> None:
    """A round to those that were run before. Several runs may have the same output."""
    lock = os.open(output.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        report = json.loads(output.read_text()) if output.exists() else {}
        report.setdefault("machine", described)
        report["rounds"] = report.get("rounds", 0) + 1
        for part in ("jobs", "killed", "found"):
            total = Counter(report.get(part, {}))
            total.update(one[part])
            report[part] = dict(total)
        written = output.with_suffix(".new")
        written.write_text(json.dumps(report, indent=1) + "\n")
        written.replace(output)
    finally:
        os.close(lock)


def rate(text: str) -> tuple[str, float]:
    """How often something is done. Raises ValueError."""
    name, _, number = text.partition("=")
    if name not in RATES:
        raise ValueError(f"{name!r} is none of {', '.join(RATES)}")
    return name, float(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of each round, before it rests"
    )
    parser.add_argument("--rate", type=rate, action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--seed", type=int, help="of the first round; else by the clock")
    parser.add_argument("--output", type=Path, help="a JSON file to which the rounds are added")
    parser.add_argument("--keep", type=Path, help="where the files of rounds with findings go")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else time.time_ns() // 10**6 % 10**9
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # all that was started ends, too
    described = machine.describe()
    bad = 0
    for n in range(args.rounds):
        one = one_round(seed + n, args.seconds, args.keep, RATES | dict(args.rate))
        bad += any(one["found"].values())
        if args.output:
            add(one, args.output, described)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
