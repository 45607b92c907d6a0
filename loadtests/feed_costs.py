"""Measure the costs that feed.py simulates: of a job, a message and an exchange, by process.

Private daemons, and a Dask scheduler with one host on this machine. CPU time is the kernel's own
count, so other work on the machine changes it little. That of the coordinator is split by least
squares over three loads: no-ops in large messages, jobs of 1 ms with about a message each way for
each, and single jobs, one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy

import gmpd
from gmpd import versions
from gmpd.client.discovery import Target
from gmpd.client.private import PrivateDaemon
from gmpd.cluster.exchange import Ask, pack, read_told
from gmpd.cluster.port import Engine, open_engine
from gmpd.config import Config
from loadtests.feed_model import Costs
from loadtests.peers.processes import cpu_s
from loadtests.scale import daemon, flow
from tests.dask_cluster import DaskCluster

HERE = Path(__file__).parent
#: Jobs of each kind.
NOOPS, MILLIS, SINGLE = 40_000, 2_000, 1_500
AT_HOST = 30_000
EXCHANGES, PINGS = 300, 2_000
ROUNDS = 5


def spin_1ms(number: int) -> int:
    """A job of 1 ms of CPU time."""
    ends = time.thread_time() + 0.001
    while time.thread_time() < ends:
        pass
    return number


def measured() -> dict[str, Any]:
    """The costs by name, in microseconds; and what they were made of."""
    here = [_here() for _ in range(ROUNDS)]
    there = _there()
    costs: dict[str, float] = {
        name: statistics.median(each[name] for each in here) for name in here[0]
    }
    costs |= there
    costs["host_message"] = costs["coordinator_message"]
    costs["hop"] = _hop()
    return {name: float(f"{costs[name]:.3g}") for name in Costs._fields}


def _used(pids: list[int]) -> float:
    return sum(cpu_s(pids).values()) * 1e6


def _here() -> dict[str, float]:
    """Client and coordinator."""
    rows, used, client_us = [], [], 0.0
    with daemon(2) as client:
        status = client.call("status")
        coordinator = [status["pid"]]

        def load(jobs: int, run: Callable[[], object]) -> None:
            messages, before = _messages(client), _used(coordinator)
            run()
            rows.append((jobs, _messages(client) - messages))
            used.append(_used(coordinator) - before)

        before = _used([os.getpid()])
        load(NOOPS, lambda: flow(client, NOOPS))
        client_us = (_used([os.getpid()]) - before) / NOOPS
        [each.result() for each in [client.submit(spin_1ms, n) for n in range(200)]]
        load(
            MILLIS,
            lambda: [each.result() for each in [client.submit(spin_1ms, n) for n in range(MILLIS)]],
        )
        load(SINGLE, lambda: [client.submit(abs, n).result() for n in range(SINGLE)])
    weights = 1 / numpy.array(used)  # each load counts alike
    found, *_ = numpy.linalg.lstsq(numpy.array(rows) * weights[:, None], numpy.ones(3))
    job_us, message_us = (max(0.1, float(each)) for each in found)
    return {
        "client_job": client_us, "coordinator_job": job_us, "coordinator_message": message_us,
    }  # fmt: skip


def _messages(client: gmpd.Client) -> int:
    by_kind: dict[str, dict[str, int]] = client.call("status")["messages"]
    return sum(sum(each.values()) for each in by_kind.values())


def _there() -> dict[str, float]:
    """The bridge, the host, and exchanges of the engine."""
    with (
        tempfile.TemporaryDirectory(prefix="gf-", dir="/tmp") as place,
        closing(DaskCluster(Path(place))) as cluster,
    ):
        cluster.add("h", 2)
        exchange = _exchanges(cluster)
        flags = {
            "daemon.procs": 1, "cluster.engine": "dask", "cluster.address": cluster.address,
        }  # fmt: skip
        config = Config.load(flags=flags, env={}, files=())
        private = PrivateDaemon(config, modules=[str(HERE.parent)])
        target = Target.of(private.endpoint, config, private)
        with closing(private), gmpd.Client(target=target) as client:
            while not (hosts := client.call("cluster")["hosts"]) or hosts[0]["state"] != "idle":
                time.sleep(0.1)
            flow(client, 5_000)
            rounds = [_flood(client, cluster) for _ in range(ROUNDS)]
    return exchange | {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def _flood(client: gmpd.Client, cluster: DaskCluster) -> dict[str, float]:
    """No-ops, of which the host has most: they cost for each job there."""
    (host,) = client.call("cluster")["hosts"]
    agent = cluster.workers["h"].pid
    (own,) = _children(agent)
    pids = {"bridge": [host["pid"]], "host": [agent, own], "workers": _children(own)}
    before = {who: _used(each) for who, each in pids.items()}
    flow(client, AT_HOST)
    jobs = client.call("cluster")["hosts"][0]["jobs_finished"] - host["jobs_finished"]
    used = {who: (_used(each) - before[who]) / jobs for who, each in pids.items()}
    return {
        "bridge_job": used["bridge"], "host_job": used["host"], "worker_job": used["workers"],
    }  # fmt: skip


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _exchanges(cluster: DaskCluster) -> dict[str, float]:
    """Empty ones of this process with an agent, one after the other."""
    settings = {"address": cluster.address, "scheduler_file": "", "timeout_s": 20.0}
    engine = open_engine("dask", settings)
    try:
        while not (hosts := engine.hosts()):
            time.sleep(0.1)
        name = hosts[0].name
        for_agent = {
            "lease_s": 30.0, "drain_s": 5.0, "config": {"daemon.procs": 1, "http.enabled": False},
            "versions": versions.own(), "initializer": None, "env": {},
        }  # fmt: skip
        begun = read_told(_asked(engine, name, Ask("costs", "", 0, settings=for_agent)))
        life, clock, number = begun.life, begun.clock, 0
        took: list[float] = []
        pids = {"bridge_exchange": os.getpid(), "host_exchange": cluster.workers["h"].pid}
        before: dict[str, float] = {}
        while number < 2 * EXCHANGES:
            if number == EXCHANGES:  # all before are calls by now, not tasks
                before = {what: _used([pid]) for what, pid in pids.items()}
                took.clear()
            number += 1
            began = time.perf_counter()
            ask = Ask("costs", life, number, clock, alone=True)
            clock = read_told(_asked(engine, name, ask)).clock
            took.append(time.perf_counter() - began)
        found = {what: (_used([pid]) - before[what]) / EXCHANGES for what, pid in pids.items()}
        _asked(engine, name, Ask("costs", life, number + 1, clock, ends=True))
    finally:
        engine.close()
    return found | {"way": statistics.quantiles(took, n=10)[0] / 2 * 1e6}


def _asked(engine: Engine, host: str, ask: Ask) -> bytes:
    came = threading.Event()
    answers: list[bytes | BaseException] = []

    def answered(answer: bytes | BaseException) -> None:
        answers.append(answer)
        came.set()

    engine.send(host, pack(ask), answered)
    if not came.wait(60):
        raise TimeoutError("the engine does not answer")
    (answer,) = answers
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _hop() -> float:
    """Half a ping-pong with another process over a pipe, as quick as one in ten is."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_echo, args=(theirs,))
    process.start()
    took = []
    for _ in range(PINGS):
        began = time.perf_counter()
        ours.send_bytes(b"x")
        ours.recv_bytes()
        took.append(time.perf_counter() - began)
    ours.send_bytes(b"")
    process.join()
    return statistics.quantiles(took, n=10)[0] / 2 * 1e6


def _echo(end: Any) -> None:
    while end.recv_bytes():
        end.send_bytes(b"x")


if __name__ == "__main__":
    print(measured(), file=sys.stderr)
