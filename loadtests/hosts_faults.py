"""Mixed jobs on the hosts of a Dask cluster while one fault after another befalls a host.

    python loadtests/hosts_faults.py [--jobs 100000] [--only kill cut …] [--record]

Three hosts with two cores each, in network namespaces (root and `ip`), otherwise on loopback
addresses without the cuts; one P here. For each fault an equal part of the jobs: results are
compared with those of the same calls in this process, and each job notes every attempt that begins,
with its place. Half of the jobs may be tried again. Exit code 1: a result differs, a job has no
outcome, an attempt began that retries do not allow, or a host does not serve again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gmpd
from gmpd.client.discovery import Target
from gmpd.client.futures import JobFuture
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from gmpd.errors import WorkerLost
from loadtests import machine
from tests.dask_cluster import DaskCluster
from tests.host_namespaces import NamespacedCluster, NoNamespaces
from tests.jobs_hosts import NAME

HERE = Path(__file__).parent
RESULTS = HERE / "results/hosts_faults.json"
HOSTS = {"north": 2, "south": 3, "west": 4}
CORES, LEASE_S, RETRIES = 2, 5.0, 3
#: A host that was silent for the lease is lost this much later at the latest (seconds).
LOST_S = 6.0
#: The longest that a part may take, and that a host may need to serve again (seconds).
END_S, SERVES_S = 240.0, 120.0
ROWS = 64


class Refused(Exception):
    """Of a job, always the same: for a number."""


def note(path: str, n: int) -> None:
    """One line for each attempt that begins; a line is written at once."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, f"{n} {os.environ.get(NAME, '')}\n".encode())
    finally:
        os.close(file)


def plain(n: int, path: str) -> object:
    """Values of several types; some jobs block, some compute, some raise."""
    if path:
        note(path, n)
    if not n % 50:
        time.sleep(0.02)
    if not n % 30:
        sum(range(20_000))
    if not n % 70:
        raise Refused(n)
    if not n % 200:
        return bytes([n % 251]) * 20_000
    return (n, [n, str(n)], {"n": n / 2, n: None}, {n, -n}, (n, None))[n % 5]


async def waits(n: int, path: str) -> object:
    """As a coroutine, with a child now and then."""
    if path:
        note(path, n)
        await gmpd.sleep(0.002)
        if not n % 8:
            return await gmpd.go(abs, -n)
    return n


def expected(n: int) -> object:
    """The outcome of job ``n``, computed here: a value, or the text of its error."""
    try:
        return asyncio.run(waits(n, "")) if not n % 4 else plain(n, "")
    except Refused as error:
        return repr(error)


# ---------------------------------------------------------------------------------------- faults


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        below = [c for task in tasks for c in (task / "children").read_text().split()]
    except OSError:
        return found
    for child in below:
        found += family(int(child))
    return found


def none(cluster: DaskCluster, name: str) -> None:
    """Nothing happens."""


def kill(cluster: DaskCluster, name: str) -> None:
    """SIGKILL to the Dask worker; it is started again."""
    cluster.workers[name].kill()
    cluster.workers[name].wait()
    cluster.add(name, HOSTS[name], CORES)


def _stopped(pids: list[int], for_s: float) -> None:
    for number, after_s in ((signal.SIGSTOP, for_s), (signal.SIGCONT, 0.0)):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it has ended meanwhile
        time.sleep(after_s)


def pause(cluster: DaskCluster, name: str) -> None:
    """All processes of a host stand still for a second, less than its lease."""
    _stopped(family(cluster.workers[name].pid), 1.0)


def stop(cluster: DaskCluster, name: str) -> None:
    """All processes of a host stand still until it is lost, and continue."""
    _stopped(family(cluster.workers[name].pid), LEASE_S + LOST_S)


def stop_worker(cluster: DaskCluster, name: str) -> None:
    """The Dask worker alone stands still; the daemon beside it does not."""
    _stopped([cluster.workers[name].pid], LEASE_S + LOST_S)


def blink(cluster: DaskCluster, name: str) -> None:
    """The wire of a host is cut for a second."""
    _cut(cluster, name, 1.0)


def cut(cluster: DaskCluster, name: str) -> None:
    """The wire of a host is cut until it is lost, and joined again."""
    _cut(cluster, name, LEASE_S + LOST_S)


def _cut(cluster: DaskCluster, name: str, for_s: float) -> None:
    assert isinstance(cluster, NamespacedCluster)
    cluster.cut(name)
    time.sleep(for_s)
    cluster.join(name)


Fault = Callable[[DaskCluster, str], None]
FAULTS: dict[str, Fault] = {
    each.__name__: each for each in (none, kill, pause, stop, stop_worker, blink, cut)
}
NEED_WIRES = ("blink", "cut")


# ------------------------------------------------------------------------------------------ a part


def serving(client: gmpd.Client) -> int:
    states = [host["state"] for host in client.call("cluster")["hosts"]]
    return sum(state in ("idle", "running") for state in states)


def await_hosts(client: gmpd.Client) -> float:
    """Until all serve; the seconds that took."""
    began = time.perf_counter()
    while serving(client) < len(HOSTS):
        if time.perf_counter() - began > SERVES_S:
            raise SystemExit(f"after {SERVES_S:g} s not all hosts serve: {client.call('cluster')}")
        time.sleep(0.1)
    return time.perf_counter() - began


def outcome(future: JobFuture, until: float) -> object:
    """A value, the text of the job's own error, or WorkerLost itself."""
    try:
        return future.result(max(0.0, until - time.perf_counter()))
    except Refused as error:
        return repr(error)
    except WorkerLost as error:
        return error


def part(
    client: gmpd.Client, cluster: DaskCluster, name: str, numbers: range, path: Path
) -> dict[str, Any]:
    """One fault, in the middle of these jobs. Raises TimeoutError when one has no outcome."""
    path.write_text("")
    began = time.perf_counter()
    again = client.options(retries=RETRIES)
    futures = [
        (again if n % 2 else client).submit(plain if n % 4 else waits, n, str(path))
        for n in numbers
    ]
    while sum(future.done() for future in futures[::ROWS]) < len(futures) / ROWS / 20:
        time.sleep(0.01)
    host = list(HOSTS)[list(FAULTS).index(name) % len(HOSTS)]
    FAULTS[name](cluster, host)
    ended = [outcome(future, began + END_S) for future in futures]
    took_s = time.perf_counter() - began
    back_s = await_hosts(client)
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    attempts, places = Counter(int(n) for n, _ in lines), Counter(place for _, place in lines)
    wrong = lost = 0
    for n, value in zip(numbers, ended, strict=True):
        if isinstance(value, WorkerLost) and not n % 2:
            lost += 1
        else:
            wrong += value != expected(n) or not attempts[n]
    more = sum(attempts[n] > (1 + RETRIES if n % 2 else 1) for n in numbers)
    return {
        "jobs": len(numbers), "wrong": wrong, "lost": lost, "too_many_attempts": more,
        "tried_again": sum(count - 1 for count in attempts.values()),
        "on_hosts": len(lines) - places[""], "seconds": round(took_s, 1),
        "serves_after_s": round(back_s, 1),
    }  # fmt: skip


def cluster_in(place: str) -> tuple[DaskCluster, str]:
    """The best cluster that this machine can give, and what it is."""
    try:
        return NamespacedCluster(Path(place)), "network namespaces"
    except NoNamespaces as error:
        print(f"no wires to cut: {error}", file=sys.stderr)
        return DaskCluster(Path(place), "60s"), "loopback addresses"


def run(jobs: int, wanted: list[str]) -> dict[str, Any]:
    """All faults, one after the other."""
    with (
        tempfile.TemporaryDirectory(prefix="gf-", dir="/tmp") as place,
        tempfile.TemporaryDirectory(prefix="gf-", dir="/tmp") as notes,
    ):
        cluster, where = cluster_in(place)
        with closing(cluster):
            for name, n in HOSTS.items():
                cluster.add(name, n, CORES)
            names = [name for name in wanted if where[0] == "n" or name not in NEED_WIRES]
            flags = {
                "daemon.procs": 1, "daemon.log_level": "error", "cluster.engine": "dask",
                "cluster.address": cluster.address, "cluster.lease": f"{LEASE_S:g}s",
            }  # fmt: skip
            config = Config.load(flags=flags, env={}, files=())
            private = PrivateDaemon(config, modules=[str(HERE), str(HERE.parent)])
            target = Target.of(private.endpoint, config)
            report: dict[str, Any] = {"hosts": where, "faults": {}}
            with closing(private), gmpd.Client(target=target) as client:
                await_hosts(client)
                each = -(-jobs // len(names))
                for at, name in enumerate(names):
                    numbers = range(1 + at * each, 1 + min(jobs, (at + 1) * each))
                    told = part(client, cluster, name, numbers, Path(notes) / "attempts")
                    report["faults"][name] = told
                    print(name, json.dumps(told), flush=True)
            return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args()
    report = {"machine": machine.describe(), **run(args.jobs, args.only)}
    if args.record:
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    rows = report["faults"].values()
    if any(row["wrong"] or row["too_many_attempts"] for row in rows):
        raise SystemExit("results differ, or jobs ran more often than they may")


if __name__ == "__main__":
    import hosts_faults as itself  # type: ignore[import-not-found]  # workers find its functions by this name

    itself.main()
