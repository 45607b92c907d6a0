"""The resources that a daemon of some size needs, compared before it starts.

A daemon that starts with too little does not fail at once: one worker of four never comes up, a
thread cannot be made an hour later, the kernel ends a process for its memory. So it is said first,
in one sentence, and the daemon is made smaller or does not start at all.

It reads this process's limits and its cgroup; the caller decides by the answer.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from gmpd.errors import ConfigError

#: Descriptors of the coordinator: its own, those that its doors keep free, and for each worker a
#: share of its door, which shuts early. Measured: 26 open, and 4 for each worker.
FILES, FILES_PER_WORKER = 96, 8
#: Descriptors that a worker begins with (measured: 17), and some for its jobs.
FILES_IN_WORKER = 48
#: Threads and processes of coordinator, gateway and reaper; and of a worker that does little.
TASKS, TASKS_PER_WORKER = 16, 8
#: Memory of coordinator and gateway, and of a worker that has imported nothing yet.
BYTES, BYTES_PER_WORKER = 80 << 20, 36 << 20


@dataclass(frozen=True, slots=True)
class Given:
    """How much more this process may have; None: not limited, or not known."""

    files: int | None = None
    tasks: int | None = None
    memory: int | None = None


def fitting(procs: int, isolated: int, given: Given) -> tuple[int, str]:
    """How many Ps fit, at most ``procs``, and why not all; raises ConfigError when not even one
    does. ``isolated``: workers of isolated jobs that may be beside them; 0: as many as Ps."""
    why = ""
    for n in range(procs, 0, -1):
        lacks = _lacks(n, n + (isolated or n), given)
        if not lacks:
            return n, why and f"{why}: it has {n} Ps instead"
        why = why or f"a daemon of {n} Ps needs {'; '.join(lacks)}"
    smallest = "; ".join(_lacks(1, 1 + (isolated or 1), given))
    raise ConfigError(f"there is too little for a daemon: one of 1 P needs {smallest}")


def _lacks(procs: int, workers: int, given: Given) -> list[str]:
    files = max(FILES + FILES_PER_WORKER * workers, FILES_IN_WORKER)
    tasks = TASKS + TASKS_PER_WORKER * procs
    memory = BYTES + BYTES_PER_WORKER * procs
    lacks = []
    if given.files is not None and given.files < files:
        lacks.append(f"{files} descriptors, {given.files} are allowed (ulimit -n, LimitNOFILE=)")
    if given.tasks is not None and given.tasks < tasks:
        lacks.append(
            f"{tasks} processes and threads, {given.tasks} more are allowed (ulimit -u, TasksMax=,"
            f" pids.max)"
        )
    if given.memory is not None and given.memory < memory:
        lacks.append(
            f"{memory >> 20} MB of memory, {given.memory >> 20} MB more are allowed (memory.max)"
        )
    return lacks


def read_given(root: Path = Path("/")) -> Given:
    """Look at this process; ``root`` stands for / in tests."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    tasks = [_left(root, "pids"), _processes_left(root)]
    return Given(
        None if soft == resource.RLIM_INFINITY else soft,
        min((n for n in tasks if n is not None), default=None),
        _left(root, "memory"),
    )


def _left(root: Path, what: str) -> int | None:
    """The share that the cgroup (v2) and its parents leave: the least of ``max - used``."""
    try:
        text = (root / "proc/self/cgroup").read_text()
    except OSError:
        return None
    own = next((line[3:] for line in text.splitlines() if line.startswith("0::")), "")
    top = root / "sys/fs/cgroup"
    group = top / own.strip("/")
    left = []
    for level in (group, *group.parents):
        if not level.is_relative_to(top):
            break
        try:
            limit = (level / f"{what}.max").read_text().strip()
            if limit != "max":
                used = int((level / f"{what}.current").read_text())
                left.append(max(0, int(limit) - used + _reclaimable(level, what)))
        except (OSError, ValueError):
            continue
    return min(left, default=None)


def _reclaimable(group: Path, what: str) -> int:
    """Memory that only caches files: it is counted, and given back under pressure."""
    if what != "memory":
        return 0
    for line in (group / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def _processes_left(root: Path) -> int | None:
    """Processes that RLIMIT_NPROC still allows. It counts the threads of a user; not of root."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft == resource.RLIM_INFINITY or os.getuid() == 0:
        return None
    used = 0
    for process in (root / "proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == os.getuid():
                used += len(os.listdir(process / "task"))
        except OSError:  # it has just ended, or is hidden
            continue
    return max(0, soft - used)
