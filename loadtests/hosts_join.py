"""How soon a host that joins has work, and the CPU time of it, by stages and processes.

    python loadtests/hosts_join.py [--boots 3] [--joins 3] [--against REV]

A boot is a Dask scheduler, a daemon with one P and a queue of jobs that sleep; then one Dask worker
after the other joins. Time runs from the moment when the scheduler says that it has a worker until
a job begins there; stages end with the starts of processes, as the kernel has them (10 ms). With
``--against`` boots of a revision and of the files as they are now take turns. Modules run as their
sources.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

HERE, NAME = Path(__file__).parent, Path(__file__).name
BOOT = sys.argv[1:2] == ["boot"]
if not BOOT:  # that finds the modules of its own revision
    sys.path.insert(0, str(HERE.parent))

#: How long a job sleeps, and how many jobs wait for a P.
PAUSE_S, QUEUED = 0.05, 400
#: The measuring client's farewell to Dask's scheduler (seconds).
CLOSE_S = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")
#: Which processes are which, by their command lines.
KINDS = {
    "bridge": "cluster.bridge",
    "watcher": "cluster.watcher",
    "template": "cluster.template",
    "scheduler": "dask scheduler",
    "dask worker": "dask worker",
    "host's worker": "daemon.worker",
}

Row = dict[str, float]


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def began_s(pid: int) -> float:
    """When a process was started, by the clock since the machine's own start."""
    return int(stat(pid)[19]) / _TICKS


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, with those of its children that have ended."""
    fields = stat(pid)
    return sum(map(int, fields[11:15])) / _TICKS if fields else 0.0


def below(pid: int) -> Iterator[int]:
    """A process and all that it has started, in that order."""
    yield pid
    children: list[str] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    for child in sorted(map(int, children)):
        yield from below(child)


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def nap(_: int) -> tuple[str, float]:
    """Where and when this job has begun."""
    from tests.jobs_hosts import NAME

    began = now_s()
    time.sleep(PAUSE_S)
    return os.environ.get(NAME, ""), began


class Listed:
    """When Dask's scheduler said that it has a worker."""

    def __init__(self, address: str) -> None:
        from distributed import Client

        self._at: dict[str, float] = {}
        self._changed = threading.Condition()
        self._dask = Client(address, set_as_default=False)
        self._dask.subscribe_topic("all", self._heard)

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        if event[1]["action"] == "add-worker":
            with self._changed:
                self._at[event[1]["worker"]] = now_s()
                self._changed.notify_all()

    def at(self, address: str) -> float:
        """Waits for it."""
        with self._changed:
            while not (found := [at for worker, at in self._at.items() if address in worker]):
                self._changed.wait()
        return found[0]

    def close(self) -> None:
        self._dask.close(timeout=CLOSE_S)


class Costs:
    """CPU time by kinds of processes since the last look."""

    def __init__(self, kind_of: Callable[[int], str]) -> None:
        self._kind_of = kind_of
        self._seen: dict[int, float] = {}
        self.look()

    def look(self) -> Counter[str]:
        spent: Counter[str] = Counter()
        for pid in below(os.getpid()):
            used = cpu_s(pid)
            spent[self._kind_of(pid)] += used - self._seen.get(pid, 0.0)  # type: ignore[assignment]
            self._seen[pid] = used
        return spent


def kind_of(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "gone"
    if pid == os.getpid():
        return "client"
    return next((kind for kind, word in KINDS.items() if word in words), "daemons")


def boot(joins: int) -> None:
    """Print a row for each host that joins."""
    import gmpd
    from gmpd.client.discovery import Target
    from gmpd.client.private import PrivateDaemon
    from gmpd.config import Config
    from tests.engines_of_tests import DaskHosts

    with (
        tempfile.TemporaryDirectory(prefix="gj-", dir="/tmp") as place,
        closing(DaskHosts(Path(place))) as cluster,
        closing(Listed(cluster.address)) as listed,
    ):
        flags = {
            "daemon.procs": 1, "limits.plain_calls": 1, "cluster.engine": "dask",
            "cluster.address": cluster.address,
        }  # fmt: skip
        config = Config.load(flags=flags, env={}, files=())
        private = PrivateDaemon(config, modules=[str(HERE)])
        with closing(private), gmpd.Client(target=Target.of(private.endpoint, config)) as client:
            client.submit(nap, 0).result()
            time.sleep(2.0)  # its watcher has begun, or not: no host is there to tell
            for n in range(joins):
                row = one_join(client, cluster, listed, f"h{n}", n)
                print(json.dumps(row), flush=True)


def one_join(client: Any, cluster: Any, listed: Listed, name: str, n: int) -> Row:
    futures = [client.submit(nap, i) for i in range(QUEUED)]
    before = set(below(os.getpid()))
    cluster.host(name)
    at = listed.at(cluster.address_of(n + 2))
    costs = Costs(kind_of)
    begun: list[float] = []
    while not begun:
        time.sleep(0.005)
        if sum(not future.done() for future in futures) < QUEUED // 2:
            futures += [client.submit(nap, i) for i in range(QUEUED)]
        ended = [future.result() for future in futures if future.done()]
        begun = [moment for place, moment in ended if place == name]
    spent = costs.look()
    bridge = next(r["pid"] for r in client.call("cluster")["hosts"] if f".{n + 2}:" in r["name"])
    agents = set(below(cluster.workers[name].pid)) - {cluster.workers[name].pid}
    new = sorted(agents - before, key=began_s)
    stages = {
        "bridge starts": began_s(bridge), "its daemon starts": began_s(new[0]),
        "its workers start": began_s(new[1]), "first job": min(begun),
    }  # fmt: skip
    rss = pss(bridge)
    for future in futures:
        future.cancel()
    return {
        **{stage: moment - at for stage, moment in stages.items()},
        **{f"cpu: {kind}": used for kind, used in spent.items()},
        "cpu": sum(used for kind, used in spent.items() if kind != "client"),
        **rss,
    }


def pss(pid: int) -> Row:
    """Memory of a bridge, MB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        words = line.split()
        if words[0] in ("Rss:", "Pss:"):
            sizes[f"bridge {words[0][:-1]} MB"] = int(words[1]) / 1024
    return sizes


def boots(trees: dict[str, Path], n: int, joins: int) -> None:
    """In turns; medians and quartiles."""
    rows: dict[str, list[Row]] = {name: [] for name in trees}
    for turn in range(n):
        order = list(trees) if turn % 2 else list(trees)[::-1]
        for name in order:
            done = subprocess.run(
                [sys.executable, trees[name] / "loadtests" / NAME, "boot", "--joins", str(joins)],
                env={**os.environ, "PYTHONPATH": str(trees[name]), "GMPD_PURE": "1"},
                stdout=subprocess.PIPE, text=True, check=True, cwd=trees[name],
            )  # fmt: skip
            rows[name] += [json.loads(line) for line in done.stdout.splitlines()]
            print(name, json.dumps(rows[name][-joins:]), file=sys.stderr, flush=True)
    keys = dict.fromkeys(key for seen in rows.values() for row in seen for key in row)
    print(f"{'':22}" + "".join(f"{name:>28}" for name in rows))
    for key in keys:
        cells = []
        for seen in rows.values():
            values = [row.get(key, 0.0) for row in seen]
            low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
            cells.append(f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})")
        print(f"{key:22}" + "".join(f"{cell:>28}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--boots", type=int, default=3)
    parser.add_argument("--joins", type=int, default=3, help="hosts of a boot")
    parser.add_argument("--against", metavar="REV", help="an earlier revision, in turns")
    args = parser.parse_args()
    if BOOT:
        boot(args.joins)
        return
    from loadtests.revisions import copy_of

    trees = {"now": HERE.parent}
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as place:
        if args.against:
            copy_of(args.against, Path(place))
            shutil.copy(__file__, Path(place) / "loadtests" / NAME)
            trees = {args.against: Path(place), **trees}
        boots(trees, args.boots, args.joins)


if __name__ == "__main__":
    import hosts_join as itself  # type: ignore[import-not-found]  # workers find its functions by this name

    itself.main()
