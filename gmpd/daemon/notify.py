"""Telling systemd how we are: sd_notify(3), one datagram per word.

The coordinator's loop calls this: READY once every worker has said hello, WATCHDOG from the loop's
own tick (so a wedged loop is restarted, which a thread with a timer would hide), STATUS for
``systemctl status``, STOPPING when it drains. Without systemd nothing is sent. The two packages
that do this need C headers or are no longer kept.

It must never know the scheduler: words and numbers in, bytes out. It never raises: a notify socket
that is gone must not end a daemon that works.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final

#: Variables that systemd sets for the main process; workers must not have them (see
#: ``take_environment``).
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def datagram(
    *,
    ready: bool = False,
    stopping: bool = False,
    watchdog: bool = False,
    status: str = "",
    reloading_ns: int | None = None,
) -> bytes:
    """The words as sd_notify(3) wants them: ``NAME=value`` lines. ``b""`` when there are none.

    ``reloading_ns``: since when, on the monotonic clock. Line breaks in ``status`` become spaces:
    one would end the value, and what follows would be taken for a word.
    """
    words = [
        ("READY=1", ready),
        (f"RELOADING=1\nMONOTONIC_USEC={(reloading_ns or 0) // 1000}", reloading_ns is not None),
        ("STOPPING=1", stopping),
        ("WATCHDOG=1", watchdog),
        ("STATUS=" + " ".join(status.split()), bool(status)),
    ]
    return "\n".join(word for word, said in words if said).encode("utf-8", "replace")


def watchdog_interval_s(env: Mapping[str, str], pid: int) -> float | None:
    """How often to send WATCHDOG, in seconds: half of what systemd waits. None when it does not.

    ``WATCHDOG_PID`` names the process that is watched; for any other there is nothing to do.
    """
    usec = env.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or int(usec) == 0 or env.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(usec) / 2e6


class Notifier:
    """Sends to the socket named by ``NOTIFY_SOCKET``; does nothing when there is none."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        # A leading @ stands for the zero byte of Linux' abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        #: Seconds between two WATCHDOG words, None when systemd does not watch.
        self.watchdog_s = watchdog_s
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # A full queue at the other end must cost a word, not the run loop.
            self._socket.setblocking(False)

    @classmethod
    def take_environment(cls, env: MutableMapping[str, str]) -> Notifier:
        """The notifier that ``env`` describes; removes its variables, so no child speaks for us."""
        notifier = cls(env.get("NOTIFY_SOCKET", ""), watchdog_interval_s(env, os.getpid()))
        for name in VARIABLES:
            env.pop(name, None)
        return notifier

    def send(self, message: bytes) -> bool:
        """Whether the datagram was handed over."""
        if self._socket is None or not message:
            return False
        try:
            self._socket.sendto(message, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Send no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Watchdog:
    """Called on every turn of the run loop: feeds systemd's watchdog as often as it asks, not more.

    ``status`` is only asked when a word is due.
    """

    def __init__(self, notifier: Notifier, interval_s: float, status: Callable[[], str]) -> None:
        self._notifier = notifier
        self._interval_ns = int(interval_s * 1e9)
        self._status = status
        self._due_ns = 0

    def __call__(self, now_ns: int) -> None:
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + self._interval_ns
            self._notifier.send(datagram(watchdog=True, status=self._status()))
