"""A reload: the log is opened again, settings are taken over, and every worker is replaced.

SIGHUP, `gmpd reload` and systemd ask for it. Nothing is changed when the settings are wrong.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from gmpd.config import Config
from gmpd.config.keys import KEYS
from gmpd.config.live import take_over
from gmpd.daemon.notify import Notifier, datagram
from gmpd.daemon.recycling import Told
from gmpd.errors import ConfigError
from gmpd.logfile import LogFile

log = logging.getLogger("gmpd.serve")


class Reloadable(Protocol):
    """A daemon, as far as it matters here."""

    config: Config

    @property
    def draining(self) -> bool: ...
    def configure(self, config: Config) -> None: ...
    def resize(self, procs: int) -> int: ...
    def replace_workers(self, why: str, told: Told | None) -> int: ...


class Reloads:
    """``reread`` gives the settings as a daemon that starts now would have them, ``procs_of`` the
    number of Ps for them. Both raise ConfigError. ``reopen`` has other processes that live on open
    the log again."""

    def __init__(
        self,
        daemon: Reloadable,
        reread: Callable[[], Config],
        procs_of: Callable[[Config], int],
        notifier: Notifier,
        reopen: Callable[[], None],
    ) -> None:
        self._daemon = daemon
        self._reread = reread
        self._procs_of = procs_of
        self._notifier = notifier
        self._log_file = LogFile()
        self._reopen = reopen

    def reload(self, why: str, told: Told | None = None) -> int:
        """Begin a reload; how many workers it replaces. ``told`` is called when it is over, with
        the reason if a successor could not start. Raises ConfigError, nothing changed, for
        settings that are wrong and for a daemon that drains."""
        self._log_file.reopen()
        self._reopen()
        if self._daemon.draining:
            raise ConfigError("the daemon drains: it replaces no worker")
        new, changed, rest = take_over(self._daemon.config, self._reread())
        procs = self._procs_of(new) if "daemon.procs" in changed else 0
        for name in changed:
            log.info("%s = %s from now on", name, KEYS[name].literal(new.value(name)))
        for name in rest:
            log.warning("%s has changed: it needs a restart of the daemon", name)
        if changed:
            self._daemon.configure(new)
        if procs:
            self._daemon.resize(procs)
        self._notifier.send(datagram(reloading_ns=time.monotonic_ns()))

        def over(problem: str) -> None:
            self._notifier.send(datagram(ready=True))
            log.log(
                logging.ERROR if problem else logging.INFO,
                "%s: %s", why, f"ended early: {problem}" if problem else "all workers are new",
            )  # fmt: skip
            if told is not None:
                told(problem)

        return self._daemon.replace_workers(why, over)

    def on_signal(self) -> None:
        """SIGHUP came."""
        try:
            self.reload("SIGHUP")
        except ConfigError as error:
            log.error("SIGHUP: nothing is reloaded: %s", error)
