"""The default directories of sockets and durable jobs.

Chooses only: `gmpd.rundir` makes the directory and checks it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gmpd.config.layers import Layer, Origin


def _is_own_dir(path: str) -> bool:
    try:
        info = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def choose_runtime_dir(
    env: Mapping[str, str], uid: int, is_own_dir: Callable[[str], bool] = _is_own_dir
) -> tuple[str, Origin]:
    """The default directory of sockets: (path, why).

    $XDG_RUNTIME_DIR counts only when it is a directory of ours: `sudo` and `su` leave that of the
    former user behind, and a daemon there would be at the mercy of its owner. Without it (cron, a
    service) the directory that a daemon of this user's session or of systemd has made counts, so
    that such a program meets the same daemon.
    """
    systemd = env.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if systemd:
        return systemd, Origin(Layer.SYSTEM, "$RUNTIME_DIRECTORY")
    session = env.get("XDG_RUNTIME_DIR", "")
    if session and is_own_dir(session):
        return f"{session}/gmpd", Origin(Layer.SYSTEM, "$XDG_RUNTIME_DIR")
    for made in (f"/run/user/{uid}/gmpd", "/run/gmpd"):
        if is_own_dir(made):
            return made, Origin(Layer.SYSTEM, "a daemon's directory of this user")
    if uid == 0 and is_own_dir("/run"):
        return "/run/gmpd", Origin(Layer.SYSTEM, "/run is ours")
    return f"/tmp/gmpd-{uid}", Origin(Layer.SYSTEM, "no other place")  # noqa: S108 - made 0700, owner checked


def choose_state_dir(env: Mapping[str, str]) -> tuple[str, Origin]:
    """The default directory of durable jobs: (path, why)."""
    systemd = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if systemd:
        return systemd, Origin(Layer.SYSTEM, "$STATE_DIRECTORY")
    if env.get("XDG_STATE_HOME"):
        return f"{env['XDG_STATE_HOME']}/gmpd", Origin(Layer.SYSTEM, "$XDG_STATE_HOME")
    return str(Path(env.get("HOME") or "~").expanduser() / ".local/state/gmpd"), Origin(
        Layer.SYSTEM, "the user's state directory"
    )


def settle_dirs(values: dict[str, Any], origins: dict[str, Origin], env: Mapping[str, str]) -> None:
    choices = {
        "daemon.runtime_dir": choose_runtime_dir(env, os.geteuid()),
        "daemon.state_dir": choose_state_dir(env),
    }
    for name, chosen in choices.items():
        if not values.get(name):
            values[name], origins[name] = chosen
        values[name] = str(Path(values[name]).expanduser().absolute())
    name = "tcp.keys"
    if not values.get(name):
        values[name] = f"{values['daemon.state_dir']}/keys"
        origins[name] = Origin(Layer.SYSTEM, "below daemon.state_dir")
    values[name] = str(Path(values[name]).expanduser().absolute())
