"""Traces that the daemon writes by itself: upon SIGUSR2, and when a job ran longer than
``trace.slow``. They are kept as the workers told them, and converted by `gmpd trace --of FILE`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from gmpd.config import Config
from gmpd.errors import ConfigError
from gmpd.private_dir import make_private
from gmpd.sched.records import PRecord

log = logging.getLogger("gmpd.coordinator")

#: Files that are kept, the newest.
KEPT: Final = 10
#: Between two dumps because of slow jobs (ns).
PAUSE_NS: Final = 60_000_000_000
#: No job runs for that long.
NEVER_US: Final = 1 << 62
#: The first field of a file, which tells that it is one.
MARK: Final = "gmpd trace 1"


class TraceDumps:
    """Writes into ``directory``. ``ask`` asks all workers for their events, and calls back with the
    reply."""

    def __init__(
        self, ask: Callable[[Callable[[dict[str, Any]], None]], None], config: Config
    ) -> None:
        self._ask = ask
        self._directory = Path(config.daemon.state_dir) / "traces"
        self._why: str | None = None
        self._next_ns = 0
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use these settings from now on."""
        self._slow_us = int(config.trace.slow * 1e6) if config.trace.enabled else 0

    @property
    def least_us(self) -> int:
        """How long a job must have run to be of interest."""
        return self._slow_us or NEVER_US

    def dump(self, why: str) -> None:
        """Write a trace, unless one is on its way."""
        if self._why is None:
            try:
                self._ask(self._write)
            except ConfigError as error:
                log.warning("%s, but there is no trace of it: %s", why, error)
            else:
                self._why = why

    def finished(self, record: PRecord, tokens: list[int], ran_us: list[int], now: int) -> None:
        """Jobs of a P have ended."""
        if not self._slow_us or max(ran_us, default=0) <= self._slow_us or now < self._next_ns:
            return
        self._next_ns = now + PAUSE_NS
        slowest = ran_us.index(max(ran_us))
        job = record.job(tokens[slowest])
        name = "a job" if job is None else job.fn.name
        self.dump(f"{name} ran for {ran_us[slowest] / 1e6:.3g} s, longer than trace.slow")

    def _write(self, reply: dict[str, Any]) -> None:
        why, self._why = self._why, None
        # A disk may be slow, and the file has megabytes.
        threading.Thread(target=self._store, args=(why, reply), daemon=True).start()

    def _store(self, why: str, reply: dict[str, Any]) -> None:
        # By one clock, and the process last: the oldest are found by their names.
        seconds, ns = divmod(time.time_ns(), 10**9)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
        path = self._directory / f"{stamp}-{ns:09}-{os.getpid()}.gmpdtrace"
        try:
            make_private(self._directory)
            partial = path.with_suffix(".part")
            partial.write_bytes(msgspec.msgpack.encode({"mark": MARK, "why": why, **reply}))
            partial.rename(path)
            for old in sorted(self._directory.glob("*.gmpdtrace"))[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s, but its trace cannot be written: %s", why, error)
            return
        log.info("%s: `gmpd trace --of %s -o t.json.gz` shows what happened", why, path)


def read_dump(path: Path) -> dict[str, Any]:
    """The reply in a file. Raises ValueError if it is no such file."""
    try:
        told = msgspec.msgpack.decode(path.read_bytes())
    except msgspec.DecodeError:
        told = None
    if not isinstance(told, dict) or told.get("mark") != MARK:
        raise ValueError(f"{path} is no trace that a daemon wrote")
    return told
