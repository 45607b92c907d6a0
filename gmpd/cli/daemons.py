"""The daemons of this user on this machine, private ones of programs too."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gmpd import rundir
from gmpd.config import Config
from gmpd.errors import ConfigError, DaemonUnreachable


class Found(NamedTuple):
    """A daemon and the directory it lives in."""

    directory: str
    record: rundir.Discovery


def places(
    first: str, env: Mapping[str, str] | None = None, uid: int | None = None
) -> Iterator[str]:
    """Directories where a daemon of this user may live: the settings' own first, then those that
    other environments lead to (a session, cron, systemd), then those of private daemons.
    """
    env = os.environ if env is None else env
    uid = os.geteuid() if uid is None else uid
    session = env.get("XDG_RUNTIME_DIR")
    fixed = [first, f"{session}/gmpd"] if session else [first]
    fixed += [f"/run/user/{uid}/gmpd", "/run/gmpd", f"/tmp/gmpd-{uid}"]  # noqa: S108 - only looked at
    yield from dict.fromkeys((*fixed, *sorted(glob.glob("/tmp/gmpd-*"))))  # noqa: S108


def daemons(first: str) -> Iterator[Found]:
    """The daemons that run. A directory that is not safely this user's is passed over."""
    for directory in places(first):
        try:
            yield Found(directory, rundir.read_discovery(directory))
        except (DaemonUnreachable, ConfigError, OSError):
            continue


def directory_of(pid: int, config: Config) -> str:
    """Where the daemon with this pid lives, or the private one of the program with this pid. Raises
    DaemonUnreachable when there is none, or more than one.
    """
    found = list(daemons(config.daemon.runtime_dir))
    meant = [each for each in found if each.record.pid == pid]
    meant = meant or [each for each in found if each.record.owner_pid == pid]
    if len(meant) == 1:
        return meant[0].directory
    if meant:
        pids = ", ".join(str(each.record.pid) for each in meant)
        raise DaemonUnreachable(
            f"the program with pid {pid} has {len(meant)} daemons: name one of {pids}"
        )
    who = "is no daemon of yours, nor a program that has a private one"
    if not os.path.exists(f"/proc/{pid}"):
        who = "is no process of this machine"
    raise DaemonUnreachable(f"pid {pid} {who}: `gmpd ls` lists your daemons")
