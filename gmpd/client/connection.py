"""A core on a socket: shared by all faces. Not thread-safe: each face has its own protection.

Each call on the socket may consume the edge of its descriptor (see ``netpoll``): ``pump`` ends only
when no message is left; the face must call it after a ``flush`` that returns True.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any

from gmpd import versions
from gmpd.client.core import ClientCore
from gmpd.client.defer_signals import DEFER_SIGNALS
from gmpd.client.liveness import TICKS, Liveness
from gmpd.client.private import PrivateDaemon
from gmpd.client.reference import Documented, public
from gmpd.errors import DaemonUnreachable, GmpdError, InvariantError
from gmpd.netpoll import Dealer, Network


class ClientConnection(metaclass=Documented):
    """The part of a client that knows its link and its core."""

    _core: ClientCore
    _link: Dealer
    _network: Network
    _liveness: Liveness
    _closed = True
    #: It exchanges plain data only, so that versions of Python and pickle do not matter.
    _plain = False
    _role = "client"
    _daemon: PrivateDaemon | None = None

    def __init__(self, endpoint: str, name: str, *, resend: bool = True) -> None:
        self.endpoint = endpoint
        self._pid = os.getpid()
        self._inbox: deque[Any] = deque()
        session = (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)
        self._head = session[:12].hex()
        info = {**versions.own(), "pid": self._pid, "name": name, "waits": resend}
        self._core = ClientCore(
            session, {**info, "plain": self._plain}, resend=resend, role=self._role
        )

    def job_id(self, seq: int) -> str:
        """The id of this client's job ``seq``."""
        return f"{self._head}{seq & 0xFFFFFFFF:08x}"

    def __dir__(self) -> list[str]:
        """The names that ``help`` shows."""
        return public(super().__dir__())

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._core.lost else "open"
        own = " (private)" if self._daemon is not None else ""
        return f"<gmpd.{type(self).__name__} {state} {self.endpoint}{own}, {self._core.busy} jobs>"

    def _open_link(self, network: Network) -> None:
        self._network = network
        self._link = Dealer(network, self.endpoint)
        self._link.send(self._core.hello())

    def _drop_link(self) -> None:
        self._link.close()
        self._network.close()

    def _no_answer(self, timeout_s: float) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"no daemon answered at {self.endpoint} within {timeout_s:g} s: it hangs, or is"
            " ending. Its log says more; `gmpd down --now` ends it, `gmpd up` starts one"
        )

    def _send_out(self) -> bool:
        """Send what may go; whether something has come in meanwhile."""
        link = self._link
        with DEFER_SIGNALS:
            for frames in self._core.take_outgoing():
                link.send(frames)
            return link.readable

    def _pump(self) -> None:
        """Send what may go, read all that has come, until the descriptor's edge is whole."""
        link, core = self._link, self._core
        with DEFER_SIGNALS:
            while True:
                for frames in core.take_outgoing():
                    link.send(frames)
                self._read()
                if not core.outgoing and not link.readable:
                    return

    def _read(self) -> None:
        inbox = self._inbox
        self._link.take(inbox)
        while inbox:
            frames = []
            while True:
                frame = inbox.popleft()
                frames.append(frame.buffer)
                if not frame.more:
                    break
            try:
                self._core.receive(frames)
            except GmpdError as error:
                self._core.lose(error)
            except Exception as error:  # noqa: BLE001 - a bug: callers are told, not left waiting
                broken = InvariantError(
                    f"a message of the daemon was not handled ({type(error).__name__}: {error}):"
                    " this is a bug in gmpd, please report it with this traceback"
                )
                broken.__cause__ = error
                self._core.lose(broken)

    def _check_peer(self) -> None:
        if self._link.take_disconnect():
            self._core.lose(self._gone())

    def _gone(self) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"the daemon at {self.endpoint} went away; jobs that it held are lost:"
            " start one with `gmpd up`, then make a new Client"
        )

    def _silence(self) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"the daemon at {self.endpoint} has not answered for client.liveness ="
            f" {self._liveness.tick_s * TICKS:g} s: it was stopped, or it hangs. Its jobs are lost"
            " to this client: see its log; `gmpd down --now` ends it"
        )

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this client belongs to process {self._pid}, and this is a fork of it"
                f" ({os.getpid()}): make a Client of its own in the child"
            )
