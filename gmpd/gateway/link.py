"""The gateway's way to the coordinator: one link, one question at a time, on a thread of its own.

It speaks ``gmpd.protocol`` as a client that submits nothing. It must never unpickle: a snapshot is
plain msgpack, inside a Reply. All of the link's life happens on one thread, as ZeroMQ's sockets
want, and the gateway's event loop only awaits that thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gmpd import protocol, versions
from gmpd.errors import DaemonUnreachable, ProtocolError
from gmpd.netpoll import Dealer, Network

#: Longest that one question may take before the link is taken for broken and made anew. Requests
#: stop waiting long before (latest.WAIT_S); this only bounds how long a lost answer can block the
#: next question.
ANSWER_S: Final = 2.0

#: Largest snapshot: 1,024 Ps at about 2 kB each, eight times over.
SNAPSHOT_BYTES_MAX: Final = 16 << 20


class CoordinatorLink:
    """Asks the coordinator at ``endpoint`` for snapshots."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coordinator-link")
        self._network: Network | None = None
        self._dealer: Dealer | None = None
        self._request = 0

    async def snapshot(self) -> dict[str, Any]:
        """The coordinator's snapshot; DaemonUnreachable or ProtocolError when it gives none."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)

    def close(self) -> None:
        """Say goodbye and end the thread; waits for a question under way, at most ANSWER_S."""
        self._thread.submit(self._leave)
        self._thread.shutdown()

    def _ask(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        try:
            dealer = self._dealer or self._join(deadline)
            self._request += 1
            dealer.send([protocol.pack(protocol.Call(self._request, "snapshot", {}))])
            reply = self._await_reply(dealer, deadline)
        except (DaemonUnreachable, ProtocolError):
            self._drop()
            raise
        if not reply.ok or not isinstance(reply.value, dict):
            raise ProtocolError(f"the coordinator gives no snapshot: {reply.value!r}")
        return reply.value

    def _join(self, deadline: float) -> Dealer:
        self._network = Network()
        dealer = Dealer(self._network, self._endpoint, value_bytes=SNAPSHOT_BYTES_MAX)
        self._dealer = dealer
        info = {"pid": os.getpid(), "name": "gateway", **versions.own()}
        dealer.send([protocol.pack(protocol.hello(protocol.ADMIN, os.urandom(16), info))])
        answer = self._next(dealer, deadline)
        if isinstance(answer, protocol.Refused):
            raise ProtocolError(f"the coordinator refuses the gateway: {answer.reason}")
        if not isinstance(answer, protocol.Welcome):
            raise ProtocolError(f"the coordinator greets with {type(answer).__name__}")
        return dealer

    def _await_reply(self, dealer: Dealer, deadline: float) -> protocol.Reply:
        while True:
            message = self._next(dealer, deadline)
            if isinstance(message, protocol.Gone):
                raise DaemonUnreachable(f"the daemon stops: {message.reason}")
            if isinstance(message, protocol.Reply) and message.request == self._request:
                return message

    def _next(self, dealer: Dealer, deadline: float) -> Any:
        if not dealer.wait(deadline - time.monotonic()):
            raise DaemonUnreachable(f"no answer from {self._endpoint} within {ANSWER_S:g} s")
        frames = dealer.recv()
        assert frames is not None, "readable, yet nothing there"
        return protocol.unpack(bytes(frames[0]), protocol.TO_CLIENT)

    def _leave(self) -> None:
        if self._dealer is not None:
            self._dealer.send([protocol.pack(protocol.Bye("the gateway ends"))])
            self._dealer.close(linger_ms=100)
            self._dealer = None
        self._drop()

    def _drop(self) -> None:
        if self._network is not None:
            self._network.close()
        self._network = self._dealer = None
