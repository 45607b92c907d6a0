"""The gateway's way to the coordinator: one question at a time, on a thread of its own.

It is a submitting session (``gmpd.submit``) that asks, and stores jobs where that is allowed. It
must never unpickle: answers are plain msgpack, inside a Reply. A link lives on one thread, as
ZeroMQ demands of its sockets; the event loop of the gateway only awaits that thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from gmpd import protocol, versions
from gmpd.errors import DaemonUnreachable, GmpdError, ProtocolError
from gmpd.netpoll import Dealer, Network
from gmpd.submit.core import SubmitCore
from gmpd.submit.events import apply

#: Longest that one question may take before the link is taken for broken and made anew. Requests
#: stop waiting long before (latest.WAIT_S); this only bounds how long a lost answer can block the
#: next question.
ANSWER_S: Final = 2.0

#: Functions that the coordinator remembers for this link.
FUNCTIONS_MAX: Final = 64

#: Largest snapshot: 1,024 Ps at about 2 kB each, eight times over.
SNAPSHOT_BYTES_MAX: Final = 16 << 20


#: Puts a question to a session; its answer goes to the sink.
Put: TypeAlias = Callable[[SubmitCore, Any], None]


class Refused(GmpdError):
    """The coordinator refuses a question, and says why."""


class CoordinatorLink:
    """Questions for the coordinator at ``endpoint``. ``role``: ``CLIENT`` may store jobs, too."""

    def __init__(self, endpoint: str, role: str = protocol.ADMIN) -> None:
        self._endpoint = endpoint
        self._role = role
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coordinator-link")
        self._network: Network | None = None
        self._session: tuple[Dealer, SubmitCore] | None = None

    async def snapshot(self) -> dict[str, Any]:
        """The coordinator's snapshot; DaemonUnreachable or ProtocolError when it gives none."""
        try:
            answer = await self.call("snapshot")
        except Refused as error:
            raise ProtocolError(f"the coordinator gives no snapshot: {error}") from None
        if not isinstance(answer, dict):
            raise ProtocolError(f"the coordinator gives no snapshot: {answer!r}")
        return answer

    async def call(self, method: str, **params: protocol.Scalar) -> Any:
        """The answer to an administrative question. Raises Refused, DaemonUnreachable,
        ProtocolError."""
        return await self.put(lambda core, sink: core.call(method, params, sink))

    async def put(self, put: Put) -> Any:
        """The answer to a question that ``put`` asks; raises as ``call``."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, put)

    def close(self) -> None:
        """Say goodbye and end the thread; waits for a question under way, at most ANSWER_S."""
        self._thread.submit(self._leave)
        self._thread.shutdown()

    def _ask(self, put: Put) -> Any:
        deadline = time.monotonic() + ANSWER_S
        answer = _Answer()
        try:
            dealer, core = self._session or self._join(deadline)
            put(core, answer)
            self._exchange(dealer, core, deadline, lambda: answer.over)
            if core.lost is not None:
                raise core.lost
        except (DaemonUnreachable, ProtocolError):
            self._drop()
            raise
        if not answer.ok:
            raise Refused(str(answer.value))
        return answer.value

    def _join(self, deadline: float) -> tuple[Dealer, SubmitCore]:
        self._network = Network()
        dealer = Dealer(self._network, self._endpoint, value_bytes=SNAPSHOT_BYTES_MAX)
        info = {"pid": os.getpid(), "name": "gateway", "plain": True, **versions.own()}
        core = SubmitCore(
            os.urandom(16), info, role=self._role, functions_max=FUNCTIONS_MAX, resend=False
        )
        self._session = dealer, core
        dealer.send(core.hello())
        self._exchange(dealer, core, deadline, lambda: core.welcome is not None)
        return dealer, core

    def _exchange(
        self, dealer: Dealer, core: SubmitCore, deadline: float, over: Callable[[], bool]
    ) -> None:
        """Send, and receive until it is ``over`` or the session is."""
        for frames in core.take_outgoing():
            dealer.send(frames)
        while not over() and core.lost is None:
            if not dealer.wait(deadline - time.monotonic()):
                raise DaemonUnreachable(f"no answer from {self._endpoint} within {ANSWER_S:g} s")
            came = dealer.recv()
            assert came is not None, "the socket was readable and held no message"
            core.receive(came)
            while core.events:
                apply(core.events.popleft())

    def _leave(self) -> None:
        if self._session is not None:
            dealer, core = self._session
            dealer.send(core.bye("the gateway ends"))
            dealer.close(linger_ms=100)
        self._drop()

    def _drop(self) -> None:
        if self._network is not None:
            self._network.close()
        self._network = self._session = None


class _Answer:
    """The sink of one question."""

    def __init__(self) -> None:
        self.over = self.ok = False
        self.value: Any = None

    def answered(self, ok: bool, value: Any) -> None:
        self.over, self.ok, self.value = True, ok, value
