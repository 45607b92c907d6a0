"""The gateway as its parent sees it: a process that is started, says where it serves, and is ended.

The HTTP service is ``gmpd.gateway``'s, which this must never import: scheduling continues with
or without it. Nothing here waits for it but ``stop``.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import msgpack

from gmpd import interpreter
from gmpd.config import Config

log = logging.getLogger("gmpd.gateway")

#: How long it may take to end before it is killed (s).
STOP_S = 5.0

#: One that ends after it served for this long is started again; one that ends sooner would end
#: again: its port is taken, or its settings are wrong (s).
WORTH_ANOTHER_S = 10.0


#: Told where a gateway serves, or None and why nowhere.
TellPage: TypeAlias = Callable[[str | None, str], object]


def settings_of(config: Config, endpoint: str) -> dict[str, Any]:
    """Settings of the gateway of a daemon that every program finds. ``endpoint``: for clients."""
    return {
        "listen": config.http.listen,
        "hosts": config.http.hosts,
        "allow": config.http.allow,
        "token_file": config.http.token_file,
        "client_endpoint": endpoint,
    }


def private_settings(endpoint: str) -> dict[str, Any]:
    """Settings of the gateway of a private daemon: on loopback, at any free port, and for looking
    only. ``http.listen`` and ``http.allow`` are meant for the daemon that has that port."""
    return {"listen": "127.0.0.1:0", "client_endpoint": endpoint}


#: Why there is no live page, where nothing else is the reason.
NO_PAGE = "http.enabled is false"
#: Questions that may wait until the gateway serves.
WAITING_MAX = 64


class Gateway:
    """The HTTP process of a daemon. ``fd`` is readable when it has written a line, or has ended."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        #: Where it serves, None before it says so and after it has ended.
        self.url: str | None = None
        #: Why it serves nowhere, and will not; empty while it does or may.
        self.problem = ""
        #: The log was moved away while it started.
        self._is_reopen_due = False
        self._start()

    def _start(self) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            interpreter.command("gmpd.gateway"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=interpreter.environment(),
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.fd = self._process.stdout.fileno()
        try:
            self._process.stdin.write(
                msgpack.packb(self._settings, unicode_errors="surrogateescape")
            )
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended: the end of its output shows it, and its output the reason

    def listen(self) -> bool:
        """Read its output. False when it has ended and ``fd`` is not to be watched any more; then
        ``start_again`` closes it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            said = json.loads(line)
            self.url, self.problem = said.get("url"), str(said.get("problem", ""))
            if self._is_reopen_due:
                self.reopen_log()
            return True
        self.url = None
        code = self._process.wait()
        self.problem = self.problem or f"the gateway ended with {code}"
        log.warning("the gateway ended with %s: no metrics", code)
        return False

    def start_again(self) -> bool:
        """Whether, after its end, another one was worth starting; ``fd`` is then a new one."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        if time.monotonic() - self._began < WORTH_ANOTHER_S:
            return False
        try:
            self._start()
        except OSError as error:  # no process to be had: scheduling continues without it
            self.problem = f"the gateway cannot be started again: {error.strerror}"
            log.warning("%s: no metrics", self.problem)
            return False
        self.problem = ""
        return True

    def reopen_log(self) -> None:
        """Have it open its log again, once it serves: before that, the signal would end it."""
        self._is_reopen_due = self.url is None
        if not self._is_reopen_due:
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Watched:
    """A gateway in the daemon's loop: ``changed`` is called when it begins or ceases to serve."""

    def __init__(
        self,
        gateway: Gateway,
        watch: Callable[[int, Callable[[], object]], None],
        unwatch: Callable[[int], None],
        changed: Callable[[Gateway], object],
    ) -> None:
        self._gateway = gateway
        self._watch = watch
        self._unwatch = unwatch
        self._changed = changed
        watch(gateway.fd, self._on_readable)

    def _on_readable(self) -> None:
        fd = self._gateway.fd
        if not self._gateway.listen():
            self._unwatch(fd)
            if self._gateway.start_again():
                self._watch(self._gateway.fd, self._on_readable)
        self._changed(self._gateway)


class OnDemand:
    """The gateway of a private daemon. Most of these are never looked at: the first question starts
    it. ``changed`` is called with the address where it serves, or None, when that has changed."""

    def __init__(
        self, start: Callable[[], Gateway], changed: Callable[[str | None], object]
    ) -> None:
        self._start = start
        self._changed = changed
        self._gateway: Gateway | None = None
        self._waiting: list[TellPage] = []

    def ask(
        self,
        tell: TellPage,
        watch: Callable[[int, Callable[[], object]], None],
        unwatch: Callable[[int], None],
    ) -> None:
        """Tell where it serves, now or once it does. ``watch`` and ``unwatch``: of the daemon's
        loop."""
        if self._gateway is None:
            try:
                self._gateway = self._start()
            except OSError as error:
                tell(None, f"the gateway cannot be started: {error.strerror}")
                return
            Watched(self._gateway, watch, unwatch, self._on_gateway)
        if self._gateway.url is not None:
            tell(self._gateway.url, "")
        elif len(self._waiting) >= WAITING_MAX:
            tell(None, "the gateway starts: ask again later")
        else:
            self._waiting.append(tell)

    def _on_gateway(self, gateway: Gateway) -> None:
        self._changed(gateway.url)
        if gateway.url is None and not gateway.problem:
            return  # another one starts
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell(gateway.url, gateway.problem)
        if gateway.url is None:
            self._gateway = None  # the next question starts another

    def stop(self) -> None:
        """End it, if it was started."""
        if self._gateway is not None:
            self._gateway.stop()
