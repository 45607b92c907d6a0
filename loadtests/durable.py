"""What durable jobs cost: enqueue beside the disk, the bare store and Redis; restarts; deaths.

    python loadtests/durable.py --record

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
JOBS, ROUNDS = 20_000, 3
#: Enqueued one after the other.
SINGLE = 200
#: Workers that are killed.
DEATHS = 20
#: Jobs of the bare store's transactions.
TRANSACTION = 1024
PEERS = ("rq", "dramatiq", "celery")
PEER_JOBS = 2000


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
    """p50 and p99 in ms."""
    cut = statistics.quantiles(seconds, n=100)
    return {"p50_ms": cut[49] * 1e3, "p99_ms": cut[98] * 1e3}


# -- enqueue -------------------------------------------------------------------------------------


def flushes(place: Path, n: int = 200) -> dict[str, float]:
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
    return quantiles_ms(seen)


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


def enqueue() -> dict[str, Any]:
    """Of one client, beside the disk and the store, in turns."""
    seen: dict[str, list[float]] = {"bare store": [], "enqueue_many": [], "gather": []}
    with directory() as place:
        disk = flushes(place)
        daemon = Daemon(place)
        client = daemon.client()
        later = client.options(delay=3600)
        later.enqueue_many(jobs.nothing, range(1000))
        for n in range(ROUNDS):
            seen["bare store"].append(bare_store(place / f"bare{n}", JOBS))
            seen["enqueue_many"].append(
                per_s(JOBS, lambda: later.enqueue_many(jobs.nothing, range(JOBS)))
            )
            seen["gather"].append(asyncio.run(gathered(str(daemon.run))))
        single = []
        for n in range(SINGLE):
            began = time.perf_counter()
            later.enqueue(jobs.nothing, n)
            single.append(time.perf_counter() - began)
        client.close()
        daemon.end()
    rates = {what: statistics.median(each) for what, each in seen.items()}
    ratio = statistics.median(
        many / bare for many, bare in zip(seen["enqueue_many"], seen["bare store"], strict=True)
    )
    return {
        "fsync": disk, "jobs_per_s": rates, "by_bare_store": ratio, "one": quantiles_ms(single),
    }  # fmt: skip


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


def deaths() -> dict[str, float]:
    """From the kill of a worker to its job's next start, in seconds."""
    seen = []
    with directory() as place:
        daemon = Daemon(place)
        client = daemon.client()
        for n in range(DEATHS):
            record = place / f"record{n}"
            job = client.enqueue(jobs.hold, str(record))
            while not record.exists() or not record.read_text().endswith("\n"):
                time.sleep(0.001)
            pid = int(record.read_text().split()[0])
            began = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            client.job(job).result(120)
            seen.append((int(record.read_text().split()[3]) - began) / 1e9)
        client.close()
        daemon.end()
    return quantiles_ms(seen)


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
MEASURE = """
n = int(sys.argv[2]); send(0); seen = []
began = time.perf_counter()
for i in range(n):
    at = time.perf_counter(); send(i); seen.append(time.perf_counter() - at)
rate = n / (time.perf_counter() - began); seen.sort()
p50, p99 = seen[n // 2] * 1e3, seen[n * 99 // 100] * 1e3
print(json.dumps({"jobs_per_s": rate, "p50_ms": p50, "p99_ms": p99}))
"""


def peers(place: Path) -> dict[str, Any]:
    """Each producer against each Redis."""
    rows: dict[str, Any] = {}
    pythons = {name: _peer_python(place / name, name) for name in PEERS}
    for how in ("always", "everysec"):
        home = place / f"redis-{how}"
        home.mkdir()
        socket = home / "s"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(home),
             "--appendonly", "yes", "--appendfsync", how],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not socket.exists():
                time.sleep(0.02)
            for name in PEERS:
                done = subprocess.run(
                    [pythons[name], "-c", PRODUCERS[name] + MEASURE, str(socket), str(PEER_JOBS)],
                    stdout=subprocess.PIPE, check=True, text=True,
                )  # fmt: skip
                rows[f"{name} {_version(pythons[name], name)}, appendfsync {how}"] = json.loads(
                    done.stdout
                )
        finally:
            server.terminate()
            server.wait(30)
    return rows


def _peer_python(home: Path, name: str) -> str:
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = str(home / "bin" / "python")
    wanted = {"rq": "rq", "dramatiq": "dramatiq[redis]", "celery": "celery[redis]"}[name]
    subprocess.run([python, "-m", "pip", "install", "-q", wanted], check=True)
    return python


def _version(python: str, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queued", type=int, nargs="*", default=[0, 100_000, 1_000_000])
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args()
    report = {"machine": machine.describe(), "rounds": ROUNDS, "enqueue": enqueue()}
    print(json.dumps(report["enqueue"]), flush=True)
    if not args.no_peers:
        with directory() as place:
            report["peers"] = peers(place)
        print(json.dumps(report["peers"]), flush=True)
    report["death"] = deaths()
    print(json.dumps(report["death"]), flush=True)
    report["restarts"] = restarts(args.queued)
    text = json.dumps(report, indent=1) + "\n"
    if args.record:
        RESULTS.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
