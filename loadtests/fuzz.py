"""Broken, hostile and merely odd messages, at every door: nothing but a counter may come of them.

    python loadtests/fuzz.py --seconds 3600 --output loadtests/results/fuzz.json

Rounds of two kinds, each with a seed of its own. *In one process*: the coordinator's two sides and
the client's core get thousands of messages, and the ledger is audited after each. *By sockets*: a
real daemon gets them on its clients' and workers' sockets, out of one of its workers, and its
gateway gets requests; after each round a client's job runs, and no handler has failed. *By TCP*, on
the port for other machines: bytes before and in the handshake from peers without a key, and
messages of clients with keys.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import gmpd  # noqa: E402 - found from the line above
from gmpd import protocol, rundir  # noqa: E402
from gmpd.client.core import ClientCore  # noqa: E402
from gmpd.config import Config  # noqa: E402
from gmpd.daemon.admin import Fanout  # noqa: E402
from gmpd.daemon.clients import Clients  # noqa: E402
from gmpd.daemon.deadlines import Deadlines  # noqa: E402
from gmpd.daemon.durable import DurableJobs  # noqa: E402
from gmpd.daemon.faults import Faults  # noqa: E402
from gmpd.daemon.job_views import JobViews  # noqa: E402
from gmpd.daemon.traffic import Traffic  # noqa: E402
from gmpd.daemon.workers import Workers  # noqa: E402
from gmpd.errors import GmpdError, ProtocolError  # noqa: E402
from gmpd.keys import AllowedClient, KeyDirectory, Role  # noqa: E402
from gmpd.netpoll import (  # noqa: E402
    Connection,
    CurveKeys,
    Dealer,
    Network,
    new_secret,
    public_of,
)
from gmpd.sched import events  # noqa: E402
from gmpd.sched import instructions as do  # noqa: E402
from gmpd.sched.records import Policy  # noqa: E402
from gmpd.sched.schedt import Sched  # noqa: E402
from loadtests import fuzz_jobs  # noqa: E402
from loadtests.fuzz_frames import Frames, handshakes, requests  # noqa: E402

#: What a peer has sent leaves within this time after its end, ms: a busy daemon reads slowly.
LINGER_MS = 5_000
#: What a worker of a P says that ends for a message: no client's message may come to that.
MISHAP = re.compile(r"gmpd worker P\d{1,4}: a message of the coordinator was not handled")
#: Peers of each kind that speak in turn.
CLIENTS, WORKERS = 3, 2


class FoundError(Exception):
    """The fuzzer has found something: the seed repeats it."""


# ------------------------------------------------------------------------------ in one process


class Line:
    """A Router on the desk."""

    def __init__(self) -> None:
        self.inbox: list[tuple[bytes, list[bytes]]] = []

    def recv(self, *, expected: bool = False) -> Any:
        return self.inbox.pop(0) if self.inbox else None

    def send(self, _peer: bytes, _frames: Any) -> bool:
        return True

    def identified(self) -> None:
        """Nothing to note."""

    def open_lane(self, _name: bytes) -> bytes:
        return b""

    def lane_of(self, _peer: bytes) -> None:
        """There is none."""

    def drop_lane(self, _peer: bytes) -> None:
        """There is none."""

    def last_connection(self) -> Connection:
        return Connection(-1, 0)

    def cut(self, _connection: Connection) -> None:
        """Nothing to cut."""


class FakeProcess:
    """A worker's process that is none."""

    isolated = False

    def __init__(self, p: int) -> None:
        self.p, self.epoch, self.peer = p, 1, b""
        self.secret, self.fault, self.expected, self.finished = b"s" * 32, "", False, 0
        self.of_p, self.recycle_at = p, sys.maxsize
        self.shm = self.watch = self

    def heard(self) -> None:
        """A message of it came."""

    def acknowledge(self, _finished: int) -> None:
        """Nothing: there is no shared memory to free."""

    def wrote(self, _now_ns: int) -> None:
        """A message goes to it."""


class FakePool:
    """Its workers never end: what would end one is counted."""

    def __init__(self) -> None:
        self.supervisor = self.recycling = self
        self.processes = {p: FakeProcess(p) for p in range(WORKERS)}
        self.kills = 0

    def worker_of(self, p: int, _epoch: int) -> FakeProcess | None:
        return self.processes.get(p)

    def kill(self, _worker: FakeProcess) -> None:
        self.kills += 1

    def ready(self, _worker: FakeProcess) -> None:
        """It said Hello."""

    def worn(self, _worker: FakeProcess, _wear: protocol.Wear, _why: str, _now: int) -> None:
        """It wishes to be replaced."""

    def faulted(self, _worker: FakeProcess, _fault: protocol.Fault) -> None:
        """It cannot serve."""


class Desk:
    """The coordinator's two sides and its policy, without sockets and processes."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now = time.monotonic_ns()
        self.sched = Sched(Policy(queue_jobs=200, window=100, seed=seed))
        faults = Faults(self.sched)
        self.deadlines = Deadlines()
        pool: Any = FakePool()
        #: Any: they stand in for a Router.
        self.of_clients, self.of_workers = cast("Any", Line()), cast("Any", Line())
        traffic = Traffic()
        self.clients = Clients(
            Config(),
            1,
            self.sched,
            self.of_clients,
            traffic,
            lambda: WORKERS,
            _answer,
            faults,
            self.deadlines,
        )
        self.clients.durable = DurableJobs(
            "no store here",
            self.sched,
            self.clients.send,
            lambda *_: None,
            self.deadlines,
            JobViews(self.sched, lambda _: None),
            lambda _: None,
            lambda _: None,
        )
        self.workers = Workers(
            self.sched,
            pool,
            self.of_workers,
            Fanout().answered,
            traffic,
            self.clients.welcome,
            faults,
        )
        self._client_frames = Frames(protocol.FROM_CLIENT, seed)
        self._worker_frames = Frames(protocol.FROM_WORKER, seed + 1)
        for p in range(WORKERS):
            hello = protocol.hello("worker", b"", {"p": p, "secret": b"s" * 32})
            self._say(self.of_workers, b"w%d" % p, [protocol.pack(hello)])

    def _say(self, line: Line, peer: bytes, frames: list[bytes]) -> None:
        line.inbox.append((peer, [*frames]))
        if line is self.of_clients:
            self.clients.receive()
        else:
            self.workers.receive()

    def step(self) -> None:
        """One message of a client or worker, its consequences, and an audit."""
        dice = self.dice
        if dice.random() < 0.05:
            hello = protocol.hello("client", dice.randbytes(16), {"name": "c"})
            self._say(self.of_clients, b"c%d" % dice.randrange(CLIENTS), [protocol.pack(hello)])
            define = protocol.Define(1, "name", "math:sqrt", b"")
            self._say(self.of_clients, b"c%d" % dice.randrange(CLIENTS), [protocol.pack(define)])
        elif dice.random() < 0.2:
            self._finish()
        elif dice.random() < 0.5:
            peer = b"c%d" % dice.randrange(CLIENTS)
            self._say(self.of_clients, peer, self._client_frames.draw())
        else:
            peer = b"w%d" % dice.randrange(WORKERS)
            self._say(self.of_workers, peer, self._worker_frames.draw())
        self._decide()
        self.sched.validate()
        if failed := self.sched.counters.dropped["failed_handler"]:
            raise FoundError(f"{failed} handlers failed: the log says which")

    def _finish(self) -> None:
        """A worker ends what it really has."""
        p = self.dice.randrange(WORKERS)
        record = self.sched.record(p)
        if record is None or not (tokens := [*record.fresh, *record.started]):
            return
        ended = self.dice.sample(tokens, self.dice.randint(1, len(tokens)))
        ones = [1] * len(ended)
        done = protocol.Finished(ended, [b"r"] * len(ended), ones, ones, None, None)
        self._say(self.of_workers, b"w%d" % p, [protocol.pack(done)])

    def _decide(self) -> None:
        self.now += self.dice.choice((1_000, 1_000_000, 1_000_000_000))
        self.deadlines.run(time.monotonic_ns())
        again = True
        while again:
            again = False
            for what in self.sched.handle(events.TurnEnded(), self.now):
                match what:
                    case do.Probe(p):
                        self.sched.handle(events.Probed(p.p, True, False), self.now)
                    case do.RecoverOutcomes():
                        pass
                    case do.Revoke():
                        got = [t for t in what.tokens if self.dice.random() < 0.5]
                        thief = None if what.thief is None else what.thief.p
                        revoked = events.Revoked(what.p.p, what.tokens, got, thief, what.asked_ns)
                        self.sched.handle(revoked, self.now)
                    case do.SendOutcomes(_, out):
                        specials: Any = out.specials or None
                        protocol.pack(
                            protocol.Done(out.seqs, out.payloads, out.ran_us, specials, None)
                        )
                    case _:
                        pass
                again = again or isinstance(what, do.Probe | do.Revoke)


def _answer(_peer: bytes, request: int, _method: str, _params: Any) -> protocol.Reply:
    return protocol.Reply(request, True, {})


def fuzz_policy(seed: int, messages: int) -> Counter[str]:
    """The coordinator's two sides; what they dropped. FoundError, or what the audit raises."""
    desk = Desk(seed)
    for _ in range(messages):
        desk.step()
    return desk.sched.counters.dropped


def fuzz_core(seed: int, messages: int) -> Counter[str]:
    """A client's core hears a broken coordinator: GmpdError is all that it raises."""
    frames, heard = Frames(protocol.TO_CLIENT, seed), Counter[str]()
    core = ClientCore(b"s" * 16, {"name": "c"})
    for _ in range(messages):
        try:
            core.receive(frames.draw())
            heard["taken"] += 1
        except ProtocolError:
            heard["refused"] += 1
        except GmpdError:
            heard["said no"] += 1
        core.events.clear()
        core.take_outgoing()
        if core.lost is not None:
            core = ClientCore(b"s" * 16, {"name": "c"})
    return heard


# -------------------------------------------------------------------------------------- by sockets


class Daemon:
    """A real daemon with a gateway, in a directory of its own."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="gfuzz", dir="/tmp")
        self.directory = Path(self._home.name) / "d"
        env = {
            **os.environ,
            "GMPD_HTTP__LISTEN": "127.0.0.1:0",
            "GMPD_DAEMON__LOG_FORMAT": "console",
            "GMPD_DAEMON__IMPORTS": "loadtests.fuzz_jobs",
            "GMPD_STATE_DIR": f"{self._home.name}/state",
            "GMPD_TCP__ENABLED": "true",
            "GMPD_TCP__LISTEN": "127.0.0.1:0",
            "PYTHONPATH": str(ROOT),
        }
        self.keys = _make_keys(Path(self._home.name) / "state/keys")
        self.log = Path(self._home.name) / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gmpd.cli", "--runtime-dir", str(self.directory), "serve",
                 "--procs", "1"], env=env, stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        self.record = self._await()
        self.clients = self.record.endpoints["client"]
        self.workers = rundir.endpoint(self.directory, "worker")

    def _await(self) -> rundir.Discovery:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            try:
                record = rundir.read_discovery(self.directory)
            except GmpdError:
                record = None
            if record is not None and record.http:
                return record
            time.sleep(0.05)
        raise FoundError(f"the daemon did not start:\n{self.log.read_text()[-3000:]}")

    def check(self) -> Counter[str]:
        """It serves on: a job runs, nothing has failed, the gateway answers. Its counters."""
        if self._process.poll() is not None:
            raise FoundError(f"THE DAEMON ENDED:\n{self.log.read_text()[-3000:]}")
        with gmpd.Client(self.clients) as client:
            if client.submit(max, 3, 4).result(60) != 4:
                raise FoundError("a job gave another value")
            status = client.call("status")
        dropped = Counter[str](status["dropped"])
        if dropped["failed_handler"] or MISHAP.search(self.log.read_text()):
            raise FoundError(f"a handler failed:\n{self.log.read_text()[-3000:]}")
        answer = _ask_http(self.record.http or "", b"GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise FoundError(f"the gateway answers {answer[:80]!r}")
        return dropped

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._home.cleanup()


def _make_keys(path: Path) -> dict[Role, CurveKeys]:
    """Of clients with each role."""
    directory, server = KeyDirectory(path), new_secret()
    directory.create(server)
    keys = {}
    for role in Role:
        secret = new_secret()
        directory.add(AllowedClient(role.value, public_of(secret), role))
        keys[role] = CurveKeys(public_of(server), secret)
    return keys


def _ask_http(url: str, request: bytes) -> bytes:
    host, _, port = url.removeprefix("http://").rpartition(":")
    if b"%s" in request:
        request = request.replace(b"%s", f"{host}:{port}".encode())
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(10)
        try:
            connection.sendall(request)
            return connection.recv(4096)
        except OSError:  # it hung up
            return b""


def _drop_http(url: str, request: bytes) -> None:
    """Send a request, and wait for no answer."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        try:
            connection.sendall(request)
        except OSError:
            pass


def fuzz_sockets(daemon: Daemon, seed: int, messages: int, *, inside: bool = True) -> Counter[str]:
    """One round at every door; ``inside``: out of its worker, too, which ends with that."""
    dice = random.Random(seed)
    network = Network()
    try:
        for endpoint, direction in (
            (daemon.clients, protocol.FROM_CLIENT),
            (daemon.workers, protocol.FROM_WORKER),
        ):
            frames, link = Frames(direction, seed), _greeted(network, endpoint)
            for n in range(messages):
                if n % 97 == 96:
                    link.close(LINGER_MS)
                    link = _greeted(network, endpoint)
                link.send(frames.draw())
                while link.recv():
                    pass
            link.close(LINGER_MS)
        for _ in range(messages // 10):
            _drop_http(daemon.record.http or "", requests(dice))
    finally:
        network.close()
    if inside:
        _from_inside(daemon, seed)
    return daemon.check()


def fuzz_network(daemon: Daemon, seed: int, messages: int) -> Counter[str]:
    """One round at the port for other machines: before, in and after the handshake."""
    dice = random.Random(seed)
    address = daemon.record.endpoints["tcp"]
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    for _ in range(messages // 10):
        with socket.create_connection((host, int(port)), 10) as connection:
            try:
                for part in handshakes(dice):
                    connection.sendall(part)
            except OSError:  # it hung up
                pass
    network = Network()
    try:
        for role, keys in daemon.keys.items():
            frames, link = Frames(protocol.FROM_CLIENT, seed), _greeted(network, address, keys)
            for n in range(messages // len(daemon.keys)):
                if n % 97 == 96:
                    link.close(LINGER_MS)
                    link = _greeted(network, address, keys)
                link.send(frames.draw())
                while link.recv():
                    pass
            link.close(LINGER_MS)
            if link.is_refused:
                raise FoundError(f"a key with the role {role} was refused")
    finally:
        network.close()
    return daemon.check()


def _greeted(network: Network, endpoint: str, keys: CurveKeys | None = None) -> Dealer:
    link = Dealer(network, endpoint, keys=keys)
    link.send([protocol.pack(protocol.hello("client", os.urandom(16), {"name": "fuzz"}))])
    link.send([protocol.pack(protocol.Define(1, "name", "math:sqrt", b""))])
    return link


def _from_inside(daemon: Daemon, seed: int) -> None:
    """Out of a worker, and into it as if from the coordinator: its jobs are lost, at most."""
    out = Frames(protocol.FROM_WORKER, seed)
    into = Frames(protocol.TO_WORKER, seed)
    with gmpd.Client(daemon.clients) as client:
        for job, frames in ((fuzz_jobs.say, out), (fuzz_jobs.hear, into)):
            future = client.options(isolate=True).submit(job, [frames.draw() for _ in range(20)])
            try:
                future.result(60)
            except GmpdError:
                pass  # WorkerLost, mostly


# ------------------------------------------------------------------------------------- by hand


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; +1 for each")
    parser.add_argument("--output", help="write the report there, as JSON")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # thousands of refusals, in this process
    began, seed, rounds = time.monotonic(), options.seed, Counter[str]()
    counts, messages = Counter[str](), Counter[str]()
    daemon = Daemon()
    try:
        while time.monotonic() - began < options.seconds:
            for name, each, n in (("policy", fuzz_policy, 3000), ("core", fuzz_core, 5000)):
                counts.update({f"{name}: {what}": k for what, k in each(seed, n).items()})
                messages[name] += n
                rounds[name] += 1
            fuzz_sockets(daemon, seed, 2000)
            messages["sockets"] += 4000 + 200 + 40
            rounds["sockets"] += 1
            fuzz_network(daemon, seed, 2000)
            messages["network"] += 2000 + 200
            rounds["network"] += 1
            seed += 1
        counts.update({f"daemon: {what}": k for what, k in daemon.check().items()})
    except BaseException:
        print(f"seed {seed}", file=sys.stderr)
        raise
    finally:
        daemon.close()
    report = {
        "seconds": round(time.monotonic() - began), "first seed": options.seed, "rounds": rounds,
        "messages": messages, "what was dropped": dict(sorted(counts.items())), "found": 0,
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if options.output:
        Path(options.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
