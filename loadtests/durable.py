"""The cost of durable jobs: enqueue beside the disk, the bare store and Redis; restarts; deaths.

    python loadtests/durable.py --record
    python loadtests/durable.py --record --only enqueue   # the other parts stay as recorded

Each figure is from real processes on this machine. Peers get a virtual environment each, made with
pip, and a Redis of their own in a temporary directory, once with ``appendfsync always`` and once
with ``everysec``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import gmpd  # noqa: E402 - found from the line above
from gmpd.daemon.sqlite_jobs import content_digest  # noqa: E402
from gmpd.daemon.sqlite_store import SqliteStore  # noqa: E402
from gmpd.errors import DaemonUnreachable  # noqa: E402
from gmpd.sched.stored import NewJob, PutJobs, StoredFunction  # noqa: E402
from loadtests import durable_jobs as jobs  # noqa: E402
from loadtests import machine  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "durable.json"
#: Jobs of one round, and rounds in turn.
JOBS, ROUNDS = 20_000, 7
#: Enqueued one after the other.
SINGLE = 300
#: Workers that are killed, of each kind.
DEATHS = 40
#: A job that has not begun after this never does (s).
LIMIT_S = 120.0
#: Jobs of the bare store's transactions.
TRANSACTION = 1024
PEERS = ("rq", "dramatiq", "celery")
PEER_JOBS = 500


class Daemon:
    """`gmpd serve` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.run = directory / "run"
        self.env = {
            **os.environ,
            "GMPD_RUNTIME_DIR": str(self.run),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "GMPD_RESTART__BACKOFF_MIN": "10ms",
            "GMPD_RESTART__STORM_DEATHS": "1000000",
            "PYTHONPATH": str(ROOT),
        }
        self.start()

    def start(self) -> float:
        """Seconds until it takes a client."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gmpd.cli", "serve"],
            env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.client().close()
        return time.monotonic() - began

    def client(self) -> gmpd.Client:
        """A new one, once it takes one."""
        while True:
            try:
                return gmpd.Client(str(self.run))
            except DaemonUnreachable:
                time.sleep(0.02)

    def rss_mb(self) -> float:
        """Resident memory of the coordinator."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def end(self, sign: int = signal.SIGTERM) -> None:
        """As systemd would, or as a power cut."""
        self.process.send_signal(sign)
        self.process.wait(120)


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A short one, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="gmpd-durable-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def per_s(n: int, run: Callable[[], object]) -> float:
    """How many in a second."""
    began = time.perf_counter()
    run()
    return n / (time.perf_counter() - began)


def quantiles_ms(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and mean in ms."""
    cut = statistics.quantiles(seconds, n=100)
    mean = statistics.fmean(seconds)
    return {"p50_ms": cut[49] * 1e3, "p99_ms": cut[98] * 1e3, "mean_ms": mean * 1e3}


# -- enqueue -------------------------------------------------------------------------------------


def flushes(place: Path, n: int = 200) -> list[float]:
    """A write of a page to a file that is there, and its flush."""
    file = os.open(place / "flush", os.O_RDWR | os.O_CREAT)
    os.write(file, b"x" * 4096 * n)
    os.fsync(file)
    seen = []
    for page in range(n):
        os.pwrite(file, b"y" * 4096, 4096 * page)
        began = time.perf_counter()
        os.fdatasync(file)
        seen.append(time.perf_counter() - began)
    os.close(file)
    return seen


def bare_store(place: Path, n: int) -> float:
    """Jobs per second of the store alone, with the same rows, in large transactions."""
    store = SqliteStore(place)
    function = StoredFunction(b"f" * 16, "name", "loadtests.durable_jobs:nothing", b"")
    now = time.time_ns() // 1_000_000
    made = []
    for row in range(n):
        id_, payload = now.to_bytes(6, "big") + row.to_bytes(10, "big"), b"\x92\x91\xce%d\x80" % row
        digest = content_digest(function.digest, b"\x80", payload, ())
        made.append(
            NewJob(id_, digest, function.digest, "", 0, b"\x80", payload, (), now, now + 3_600_000)
        )

    def put() -> None:
        for at in range(0, n, TRANSACTION):
            store.apply([PutJobs((function,), tuple(made[at : at + TRANSACTION]))])

    rate = per_s(n, put)
    store.close()
    return rate


def enqueue(peers: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Of one client, beside the disk, the store and ``peers``, in turns."""
    rates: dict[str, list[float]] = {"bare store": [], "enqueue_many": [], "gather": []}
    disk, single, others = [], [], []
    with directory() as place:
        daemon = Daemon(place)
        client = daemon.client()
        later = client.options(delay=3600)
        later.enqueue_many(jobs.nothing, range(1000))
        for n in range(ROUNDS):
            disk.append(quantiles_ms(flushes(place)))
            rates["bare store"].append(bare_store(place / f"bare{n}", JOBS))
            rates["enqueue_many"].append(
                per_s(JOBS, lambda: later.enqueue_many(jobs.nothing, range(JOBS)))
            )
            rates["gather"].append(asyncio.run(gathered(str(daemon.run))))
            single.append(one_by_one(later))
            others.append(peers())
            print(f"round {n}", {k: f"{v[-1]:,.0f}" for k, v in rates.items()}, flush=True)
        client.close()
        daemon.end()
    pairs = zip(rates["enqueue_many"], rates["bare store"], strict=True)
    ratios = [many / bare for many, bare in pairs]
    return {
        "fsync": _medians(disk),
        "jobs_per_s": {what: statistics.median(each) for what, each in rates.items()},
        "by_bare_store": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
        "one": _medians(single),
        "peers": {name: _medians([each[name] for each in others]) for name in others[0]},
    }  # fmt: skip


def one_by_one(client: Any) -> dict[str, float]:
    """Calls that do not overlap, as the peers' producers make them."""
    seen = []
    for number in range(SINGLE):
        began = time.perf_counter()
        client.enqueue(jobs.nothing, number)
        seen.append(time.perf_counter() - began)
    return {"jobs_per_s": SINGLE / sum(seen), **quantiles_ms(seen)}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


async def gathered(endpoint: str) -> float:
    """Calls that wait together in one loop."""
    async with gmpd.AsyncClient(endpoint) as client:
        later = client.options(delay=3600)
        began = time.perf_counter()
        await asyncio.gather(*[later.enqueue(jobs.nothing, n) for n in range(JOBS)])
        return JOBS / (time.perf_counter() - began)


# -- restarts and deaths -------------------------------------------------------------------------


def restarts(sizes: list[int]) -> list[dict[str, float]]:
    """After ``kill -9`` with this many queued."""
    rows = []
    with directory() as place:
        daemon = Daemon(place)
        queued = 0
        for size in sizes:
            with daemon.client() as client:
                client.options(delay=86_400).enqueue_many(jobs.nothing, range(size - queued))
            queued, before = size, daemon.rss_mb()
            daemon.end(signal.SIGKILL)
            seconds = daemon.start()
            with daemon.client() as client:
                client.job(client.enqueue(jobs.nothing, 0)).result()
            rows.append(
                {
                    "queued": size, "ready_s": seconds, "rss_mb": daemon.rss_mb(),
                    "rss_before_mb": before,
                }
            )  # fmt: skip
        daemon.end()
    return rows


def deaths() -> dict[str, Any]:
    """From the kill of a worker to its job's next start: of jobs whose functions end no other
    worker, and of one function that has become suspect."""
    with directory() as place:
        daemon = Daemon(place)
        client = daemon.client()
        seen = [death(client, fn, place / fn.__name__) for fn in jobs.HOLDS[:DEATHS]]
        # The other P is there at once; without one, a new interpreter starts first.
        with_spare = quantiles_ms(seen)
        suspect = [death(client, jobs.hold, place / f"hold{n}") for n in range(DEATHS)]
        client.close()
        daemon.end()
    return {"functions": with_spare, "suspect": quantiles_ms(suspect[DEATHS // 4 :])}


def death(client: gmpd.Client, fn: Callable[[str], None], record: Path) -> float:
    """Seconds from one kill to the next start."""
    job = client.job(client.enqueue(fn, str(record)))
    end = time.monotonic() + LIMIT_S
    while not record.exists() or not record.read_text().endswith("\n"):
        if time.monotonic() > end:
            raise TimeoutError(f"{job.info()} has not begun; {client.call('status')}")
        time.sleep(0.001)
    began = time.monotonic_ns()
    os.kill(int(record.read_text().split()[0]), signal.SIGKILL)
    job.result(LIMIT_S)
    return (int(record.read_text().split()[3]) - began) / 1e9


# -- peers ---------------------------------------------------------------------------------------

PRODUCERS = {
    "rq": """
import redis, rq, operator, json, time, sys
queue = rq.Queue(connection=redis.Redis(unix_socket_path=sys.argv[1]))
send = lambda n: queue.enqueue(operator.add, n, 1)
""",
    "dramatiq": """
import dramatiq, json, time, sys
from dramatiq.brokers.redis import RedisBroker
dramatiq.set_broker(RedisBroker(url="unix://" + sys.argv[1]))
@dramatiq.actor
def add(a, b): return a + b
send = lambda n: add.send(n, 1)
""",
    "celery": """
import celery, json, time, sys
app = celery.Celery(broker="redis+socket://" + sys.argv[1])
@app.task(ignore_result=True)
def add(a, b): return a + b
send = lambda n: add.delay(n, 1)
""",
}
#: What has a call for many at a time.
MANY = {
    "rq": """
send_many = lambda ns: queue.enqueue_many([rq.Queue.prepare_data(operator.add, (n, 1)) for n in ns])
""",
}
MEASURE = """
n = int(sys.argv[2]); send(0); seen = []
began = time.perf_counter()
for i in range(n):
    at = time.perf_counter(); send(i); seen.append(time.perf_counter() - at)
rate = n / (time.perf_counter() - began); seen.sort()
p50, p99 = seen[n // 2] * 1e3, seen[n * 99 // 100] * 1e3
many = 0
if "send_many" in globals():
    began = time.perf_counter()
    for at in range(0, 10 * n, 1000): send_many(range(at, at + 1000))
    many = 10 * n / (time.perf_counter() - began)
print(json.dumps({"jobs_per_s": rate, "p50_ms": p50, "p99_ms": p99, "many_per_s": many}))
"""


@contextlib.contextmanager
def redis_and_peers(place: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Each producer against each Redis, once for each call."""
    pythons = {name: _peer_python(place / name, name) for name in PEERS}
    named = {name: f"{name} {_version(pythons[name], name)}" for name in PEERS}
    with contextlib.ExitStack() as stack:
        sockets = {how: stack.enter_context(_redis(place, how)) for how in ("always", "everysec")}

        def once() -> dict[str, Any]:
            rows: dict[str, Any] = {}
            for how, socket in sockets.items():
                for name in PEERS:
                    code = PRODUCERS[name] + MANY.get(name, "") + MEASURE
                    told = subprocess.check_output(
                        [pythons[name], "-c", code, str(socket), str(PEER_JOBS)], text=True
                    )
                    rows[f"{named[name]}, appendfsync {how}"] = json.loads(told)
            return rows

        yield once


@contextlib.contextmanager
def _redis(place: Path, how: str) -> Iterator[Path]:
    home = place / f"redis-{how}"
    home.mkdir()
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(home / "s"), "--dir", str(home),
         "--appendonly", "yes", "--appendfsync", how],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not (home / "s").exists():
            time.sleep(0.02)
        yield home / "s"
    finally:
        server.terminate()
        server.wait(30)


def _peer_python(home: Path, name: str) -> str:
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = str(home / "bin" / "python")
    wanted = {"rq": "rq", "dramatiq": "dramatiq[redis]", "celery": "celery[redis]"}[name]
    subprocess.run([python, "-m", "pip", "install", "-q", wanted], check=True)
    return python


def _version(python: str, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def parts(queued: list[int], *, alone: bool = False) -> dict[str, Callable[[], Any]]:
    """The measurements, by name."""

    def beside_peers() -> Any:
        if alone:
            return enqueue(dict)
        with directory() as place, redis_and_peers(place) as peers:
            return enqueue(peers)

    return {
        "enqueue": beside_peers,
        "death": deaths,
        "restarts": lambda: restarts(queued),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queued", type=int, nargs="*", default=[0, 100_000, 1_000_000])
    parser.add_argument("--only", nargs="*", choices=parts([]), help="these parts")
    parser.add_argument("--no-peers", action="store_true", help="RQ, Dramatiq and Celery")
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args()
    report: dict[str, Any] = {}
    if args.record and args.only and RESULTS.exists():
        report = json.loads(RESULTS.read_text())
    report |= {"machine": machine.describe(), "rounds": ROUNDS}
    loads = report.setdefault("loads", {})
    for name, measure in parts(args.queued, alone=args.no_peers).items():
        if not args.only or name in args.only:
            before = os.getloadavg()[0]
            report[name] = measure()
            loads[name] = [round(before, 1), round(os.getloadavg()[0], 1)]
            print(name, json.dumps(report[name]), flush=True)
            if args.record:
                RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
