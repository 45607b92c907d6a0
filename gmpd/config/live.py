"""Which keys a running daemon takes over when it reads its settings again: those that it looks up
each time, or that are settings of workers, which are replaced then.

The others are built into sockets, limits and files at the start.
"""

from __future__ import annotations

from gmpd.config.keys import KEYS
from gmpd.config.load import Config

LIVE: frozenset[str] = frozenset({
    "daemon.procs", "daemon.imports", "daemon.pin", "daemon.start_timeout", "daemon.drain_timeout",
    "daemon.log_level",
    "limits.worker_results", "limits.worker_calls", "limits.max_ms",
    "restart.backoff_min", "restart.backoff_max", "restart.storm_deaths", "restart.storm_window",
    "restart.frozen",
    *(name for name in KEYS if name.startswith(("recycle.", "trace."))),
})  # fmt: skip


def take_over(old: Config, new: Config) -> tuple[Config, list[str], list[str]]:
    """``old`` with the live keys of ``new``; the names of those that changed, and of changed keys
    that need a restart. A client's keys are none of the daemon's."""
    changed = [name for name in KEYS if old.value(name) != new.value(name)]
    live = [name for name in changed if name in LIVE]
    rest = [name for name in changed if name not in LIVE and not name.startswith("client.")]
    return old.override({name: new.value(name) for name in live}), live, rest
