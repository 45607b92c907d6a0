"""Jobs on the hosts of a Dask cluster, beside ``map`` of Dask itself and of Ray, in one run.

    python loadtests/hosts.py [--hosts 1 2 4] [--rounds 3] [--ray] [--engine ray]

All hosts are processes of this machine and share its cores, so the CPU time of a job is compared:
that of all processes of the cluster and of the daemon. Kinds of jobs: *no-op*; *1 ms* of CPU time;
*tail*, the same with one job in fifty of 20 ms. Their cost is a multiple of the CPU time that the
jobs themselves ask for: on hosts with cores of their own, the makespan is that multiple of the
ideal one at least. ``--ray``: as many nodes of Ray, too, in an environment that is made for it.
``--engine ray``: gmpd's own hosts are nodes of Ray (``gmpd[ray]``), and Dask is not measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gmpd
from gmpd.client.discovery import Target
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from loadtests.peers.environments import Missing, python_of
from loadtests.peers.peer import adapter
from loadtests.peers.processes import MARK, end_marked, marked
from loadtests.peers.run import CACHE
from tests.engines_of_tests import DaskHosts
from tests.ray_cluster import RayCluster

CORES = 2
NOOPS, MILLIS = 20_000, 3_000
DASK_JOBS = RAY_JOBS = 2_000
CLUSTERS: dict[str, type[DaskHosts | RayCluster]] = {"dask": DaskHosts, "ray": RayCluster}
_TICKS = os.sysconf("SC_CLK_TCK")


def noop(i: int) -> int:
    return i


def spin(cpu_s: float) -> None:
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        pass


def millis(i: int) -> int:
    spin(0.001)
    return i


def tail(i: int) -> int:
    spin(0.02 if not i % 50 else 0.001)
    return i


def cpu_s(pids: set[int]) -> float:
    """CPU seconds of processes, with those of their children that have ended."""
    total = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, stat[11:15]))
    return total / _TICKS


def below(pid: int) -> set[int]:
    """A process and all that it has started."""
    found = {pid}
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    except OSError:
        return found
    for child in set(children):
        found |= below(int(child))
    return found


def own_processes() -> set[int]:
    return below(os.getpid())


def measured(
    what: str, n: int, run: Callable[[], object], own_s: float, rounds: int,
    processes: Callable[[], set[int]] = own_processes,
) -> float:  # fmt: skip
    """Print medians; jobs a second. ``own_s``: CPU time that the jobs ask for. ``processes``: that
    take part."""
    walls, costs = [], []
    for _ in range(rounds):
        pids = processes()
        cpu, began = cpu_s(pids), time.perf_counter()
        run()
        walls.append(time.perf_counter() - began)
        costs.append(cpu_s(pids | processes()) - cpu)
    wall_s, cost_s = statistics.median(walls), statistics.median(costs)
    ratio = f"  {cost_s / own_s:.2f} x the jobs' own" if own_s else ""
    print(f"  {what:24} {n / wall_s:9,.0f} jobs/s  {cost_s / n * 1e6:7.0f} us CPU a job{ratio}")
    return n / wall_s


def with_hosts(engine: str, hosts: int, rounds: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="gh-", dir="/tmp") as place,
        closing(CLUSTERS[engine](Path(place))) as cluster,
    ):
        for n in range(hosts):
            cluster.host(f"h{n}", CORES)
        flags = {
            "daemon.procs": 1, "cluster.engine": engine,
            "cluster.address": cluster.address,
        }  # fmt: skip
        config = Config.load(flags=flags, env={}, files=())
        private = PrivateDaemon(config, modules=[str(Path(__file__).parent)])
        target = Target.of(private.endpoint, config)
        with closing(private), gmpd.Client(target=target) as client:
            ours = _ours(client, hosts, rounds)
            if isinstance(cluster, DaskHosts):
                _compare_dask(ours, cluster, rounds)


def _ours(client: gmpd.Client, hosts: int, rounds: int) -> float:
    """No-ops a second."""
    while sum(h["state"] == "idle" for h in client.call("cluster")["hosts"]) < hosts:
        time.sleep(0.1)
    print(f"{hosts} hosts with {CORES} cores, and 1 P here")

    def submitted(fn: Callable[[int], int], n: int) -> Callable[[], object]:
        return lambda: [f.result() for f in [client.submit(fn, i) for i in range(n)]]

    submitted(noop, 2000)()
    submitted(millis, 2000)()
    ours = measured("no-op", NOOPS, submitted(noop, NOOPS), 0.0, rounds)
    for name, fn, own_s in (("1 ms", millis, 1e-3), ("tail", tail, 1.38e-3)):
        measured(name, MILLIS, submitted(fn, MILLIS), MILLIS * own_s, rounds)
    return ours


def _compare_dask(ours: float, cluster: DaskHosts, rounds: int) -> None:
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as dask:

        def mapped(fn: Callable[[int], int]) -> Callable[[], object]:
            return lambda: dask.gather(dask.map(fn, range(DASK_JOBS), pure=False))

        mapped(noop)()
        theirs = measured("no-op, Dask client.map", DASK_JOBS, mapped(noop), 0.0, rounds)
        own_s = DASK_JOBS * 1e-3
        measured("1 ms, Dask client.map", DASK_JOBS, mapped(millis), own_s, rounds)
    print(f"  no-ops: {ours / theirs:.1f} x Dask's own rate")


def with_ray(hosts: int, rounds: int) -> None:
    """Its processes leave their parent, so they are found by a mark."""
    try:
        python = python_of("ray", adapter("ray").packages, CACHE)
    except Missing as why:
        print(f"  no rows of Ray: {why}")
        return
    mark = f"hosts-{os.getpid()}"
    process = subprocess.Popen(
        [python, str(Path(__file__).with_name("hosts_ray.py")), str(hosts), str(CORES)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, MARK: mark, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    read, write = process.stdout.readline, process.stdin

    def mapped(kind: str) -> None:
        print(f"{kind} {RAY_JOBS}", file=write, flush=True)
        if not read():
            raise RuntimeError("Ray's process has ended")

    try:
        if not read():
            print("  no rows of Ray: its nodes do not start")
            return
        for kind, own_s in (("no-op", 0.0), ("1 ms", RAY_JOBS * 1e-3)):
            mapped(kind)
            run = partial(mapped, kind)
            measured(f"{kind}, Ray remote", RAY_JOBS, run, own_s, rounds, lambda: set(marked(mark)))
    finally:
        write.close()
        end_marked(mark, 20.0)
        process.wait()
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--engine", choices=CLUSTERS, default="dask")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="rows of Ray, too")
    args = parser.parse_args()
    for hosts in args.hosts:
        with_hosts(args.engine, hosts, args.rounds)
        if args.ray:
            with_ray(hosts, args.rounds)


if __name__ == "__main__":
    import hosts as itself  # type: ignore[import-not-found]  # workers find its functions by this name

    itself.main()
