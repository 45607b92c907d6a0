"""How many Ps a machine deserves, and which cores they may use: Go's GOMAXPROCS rule.

The CPUs of the affinity mask, bounded by the cgroup's CPU quota, so that a daemon in a container
with ``--cpus=2`` on a 64-core host starts two workers. It alone reads /proc and /sys/fs/cgroup for
this question; its callers decide by the answer.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Any

from gmpd.errors import ConfigError

#: Go's floor for the quota's part: with one P a runtime cannot overlap a collection (for us: a CPU
#: hog) with anything, so a quota of half a core still gets two, unless the machine has but one.
QUOTA_FLOOR = 2

#: More Ps than this are refused: each is a process of 30 MB that has a core to itself only while
#: there are no more of them than cores, and calls that block need no P. The first number lets small
#: machines play large ones, the second is for each core.
PROCS_MAX = 64
PROCS_MAX_PER_CPU = 8

#: Workers per core that start at the same time: one computes its imports while another waits
#: for the disk. More would only keep the daemon and each other from the cores.
STARTS_PER_CPU = 2


@dataclass(frozen=True, slots=True)
class Facts:
    """The inputs of the rule."""

    cpus: int  # online in the machine
    allowed: tuple[int, ...]  # of the affinity mask, sorted
    quota: float | None  # cores' worth of time by the cgroup; None: not limited

    @property
    def procs(self) -> int:
        """GOMAXPROCS by default."""
        return gomaxprocs(self.cpus, len(self.allowed), self.quota)


def gomaxprocs(cpus: int, affinity: int, quota: float | None) -> int:
    """Go's `defaultGOMAXPROCS` and `adjustCgroupGOMAXPROCS`: at least 1."""
    procs = max(1, min(cpus, affinity))
    if quota is None:
        return procs
    return min(procs, max(QUOTA_FLOOR, ceil(quota)))


def check_procs(procs: int, cpus: int | None = None) -> None:
    """Raise ConfigError for more Ps than a machine of ``cpus`` cores (default: this) can use."""
    most = procs_max(cpus)
    if procs > most:
        raise ConfigError(
            f"{procs} Ps are more than this machine can use: at most {most} ({PROCS_MAX}, or"
            f" {PROCS_MAX_PER_CPU} for each core). Each P is a process for one core; jobs that"
            f" wait or block need no P of their own"
        )


def procs_max(cpus: int | None = None) -> int:
    """The most Ps that are allowed on ``cpus`` cores (default: this machine's)."""
    return max(PROCS_MAX, PROCS_MAX_PER_CPU * (cpus or os.cpu_count() or 1))


def starts_at_once() -> int:
    """How many workers may start at the same time."""
    return STARTS_PER_CPU * len(os.sched_getaffinity(0))


def core_of(p: int, procs: int) -> int | None:
    """The core of P ``p`` of ``procs``; None when a fixed one would be worse than the kernel's
    choice: beside other programs, fewer Ps than cores would all be on the first ones, and more but
    for a multiple share them unevenly."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[p % len(cores)] if procs % len(cores) == 0 else None


def pin(core: int) -> None:
    """Keep this process on one core, and let what its jobs start have all of those that it had."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})

    def release() -> None:
        os.sched_setaffinity(0, allowed)

    def hold() -> None:
        os.sched_setaffinity(0, {core})

    os.register_at_fork(before=release, after_in_parent=hold)
    for module, name in ((subprocess, "_fork_exec"), (os, "posix_spawn"), (os, "posix_spawnp"),
                         (os, "system")):  # fmt: skip
        start = getattr(module, name, None)
        if start is not None:
            setattr(module, name, _between(release, start, hold))


def _between(before: Callable[[], None], fn: Any, after: Callable[[], None]) -> Any:
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        before()
        try:
            return fn(*args, **kwargs)
        finally:
            after()

    return call


def read_facts(root: Path = Path("/")) -> Facts:
    """Look at this process; `root` stands for / in tests."""
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    return Facts(cpus=os.cpu_count() or len(allowed), allowed=allowed, quota=read_quota(root))


def read_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of CPU time that the cgroup of this process may use, or None.

    As Go's internal/runtime/cgroup: a v1 hierarchy with the cpu controller counts before v2. Other
    than Go, which reads the process's own group only, the least of the group and its visible
    ancestors is taken, since that is what the kernel enforces. A file that cannot be read limits
    nothing, as in Go.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text()
        mounts = (root / "proc/self/mountinfo").read_text()
    except OSError:
        return None
    group, version = _own_group(groups)
    if group is None:
        return None
    directory, top = _locate(mounts, group, version, root)
    if directory is None or top is None:
        return None
    read = _quota_v1 if version == 1 else _quota_v2
    found = [quota for level in _upwards(directory, top) if (quota := read(level)) is not None]
    return min(found, default=None)


def _own_group(text: str) -> tuple[str | None, int]:
    """(path, version) of the group that limits CPU time, of /proc/self/cgroup."""
    unified = None
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            return path, 1
        if number == "0" and not controllers:
            unified = path
    return unified, 2


def _locate(mounts: str, group: str, version: int, root: Path) -> tuple[Path | None, Path | None]:
    """(directory of the group, directory of its hierarchy's mount) of /proc/self/mountinfo.

    A mount shows the hierarchy from its `root` field down; in a container that is often the
    container's own group, so that the path within the mount is the part below it.
    """
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] != ("cgroup" if version == 1 else "cgroup2"):
            continue
        if version == 1 and "cpu" not in kind[2].split(","):
            continue
        shown, mount = _unescaped(fields[3]), _unescaped(fields[4])
        if not PurePosixPath(group).is_relative_to(shown):
            continue
        top = root / mount.lstrip("/")
        return top / PurePosixPath(group).relative_to(shown), top
    return None, None


def _unescaped(field: str) -> str:
    """mountinfo writes blank, tab, newline and backslash as octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _upwards(directory: Path, top: Path) -> list[Path]:
    return [directory, *(level for level in directory.parents if level.is_relative_to(top))]


def _quota_v2(directory: Path) -> float | None:
    """Cores that cpu.max allows: "150000 100000" is 1.5 cores, "max 100000" is no limit."""
    try:
        quota, period = (directory / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(directory: Path) -> float | None:
    """Cores that cpu.cfs_quota_us and cpu.cfs_period_us allow; -1 is no limit."""
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
