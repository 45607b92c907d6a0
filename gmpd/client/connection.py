"""A core on a socket: shared by all faces. Not thread-safe: each face has its own protection.

Each call on the socket may consume the edge of its descriptor (see ``netpoll``): ``pump`` ends only
when no message is left; the face must call it after a ``flush`` that returns True.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from gmpd import versions
from gmpd.client.calls import Answer
from gmpd.client.core import ClientCore
from gmpd.client.defer_signals import DEFER_SIGNALS
from gmpd.client.discovery import page_of
from gmpd.client.liveness import TICKS, Liveness, Verdict
from gmpd.client.outage import FULL_S, Outage, Step
from gmpd.client.private import PrivateDaemon
from gmpd.client.reference import Documented, public
from gmpd.client.stored import Storable
from gmpd.client.storing import StoreBatch
from gmpd.errors import (
    DaemonUnreachable,
    GmpdError,
    InvariantError,
    NoAnswer,
    NotAllowed,
    another,
)
from gmpd.keys import ClientKey
from gmpd.netpoll import CurveKeys, Dealer, Network
from gmpd.submit.batch import Options

T = TypeVar("T")

#: The job options that a daemon of plain values insists on.
PLAIN: Options = {"plain": True}

#: How long a question about durable jobs waits for the daemon (s): it flushes a disk.
ASK_S = 60.0


class ClientConnection(metaclass=Documented):
    """The part of a client that knows its link and its core."""

    _core: ClientCore
    _link: Dealer
    _network: Network
    _liveness: Liveness
    _closed = True
    #: See ``views.Face``.
    _forced: Options | None = None
    #: It exchanges plain data only, so that versions of Python and pickle do not matter.
    _plain = False
    _role = "client"
    _daemon: PrivateDaemon | None = None
    #: For a daemon on another machine.
    _key: ClientKey | None = None
    #: Seconds for which it looks for a daemon after it has lost one.
    _reconnect_s = 0.0
    #: While it looks for one.
    _outage: Outage | None = None

    def __init__(self, endpoint: str, name: str, *, resend: bool = True) -> None:
        self.endpoint = endpoint
        self._pid = os.getpid()
        self._inbox: deque[Any] = deque()
        session = (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)
        self._head = session[:12].hex()
        info = {**versions.own(), "pid": self._pid, "name": name, "waits": resend}
        info |= {"plain": self._plain, "progress": True, "answers": True}
        self._core = ClientCore(session, info, resend=resend, role=self._role)

    def job_id(self, seq: int) -> str:
        """The id of this client's job ``seq``."""
        return f"{self._head}{seq & 0xFFFFFFFF:08x}"

    # -- verbs that wait for nothing, and the beginning of those that do --------------------------

    @abstractmethod
    def _do(self, step: Callable[[], T]) -> T:
        """Change the core by ``step``, protected as this face needs it, and send what follows."""

    def unfinished(self) -> int:
        """Jobs that have no outcome yet."""
        return self._core.busy

    def cancel_pending(self) -> int:
        """Cancel everything that has not started; how many were cancelled before they were sent."""
        return self._do(self._core.cancel_all)

    def pull_items(self, seq: int, n: int) -> None:
        """Room for ``n`` more items of a stream."""
        self._do(lambda: self._core.pull(seq, n))

    @property
    def page_url(self) -> str | None:
        """Where the daemon's gateway serves the live page and metrics; None if it has none.

        A private daemon starts its gateway when this is read first: a Client waits for that, and an
        AsyncClient gives None until it serves.
        """
        url = page_of(self.endpoint)
        return self._ask_page() if url is None and self.endpoint.startswith("ipc://") else url

    def _ask_page(self) -> str | None:
        """Where it serves, as the daemon says, which may start it."""
        return None

    def call(self, method: str, /, *, timeout: float | None = 30.0, **params: Any) -> Any:
        """Make an administrative call (``"status"``, …) and return its answer, plain data; to be
        awaited in an AsyncClient.

        ``timeout``: seconds; None: no limit. Raises NoAnswer (a DaemonUnreachable and a
        TimeoutError) if no answer comes in time, GmpdError with the daemon's reason if it refuses.
        """
        return self._request(lambda sink: self._core.call(method, params, sink), method, timeout)

    @abstractmethod
    def _request(
        self,
        put: Callable[[Answer], None],
        what: str,
        timeout: float | None,
        late: type[Exception] = NoAnswer,
    ) -> Any:
        """Send what ``put`` gives to the core, and wait for its Reply; the value of that."""

    def _ask(self, put: Callable[[Answer], None], what: str, told: Callable[[], object]) -> Answer:
        """The beginning of a request; ``told`` is called when its answer has come. Without a link
        the core knows whether it waits for one."""
        self._check_not_closed()
        answer = Answer(what, told)
        self._do(lambda: put(answer))
        return answer

    def _take_answer(self, answer: Answer, waited_s: float | None, late: type[Exception]) -> Any:
        """The end of a request, whether it was answered or not."""
        if not answer.over:
            self._do(lambda: self._core.forget_call(answer))
        return answer.take(self.endpoint, waited_s, late)

    def _check_storable(self, job: Storable) -> None:
        """Raises Unserializable."""
        self._core.check(job.ref, job.blob, job.options)

    def _to_store(self, batch: StoreBatch) -> Callable[[Answer], None]:
        """The request that has jobs stored, which were checked."""
        core = self._core
        return lambda sink: core.enqueue(batch.ref, batch.jobs, batch.options, batch.stored, sink)

    def ask_to_store(self, batch: StoreBatch, told: Callable[[], object]) -> Answer:
        """Have jobs stored, which were checked; ``told`` is called when the answer has come."""
        return self._ask(self._to_store(batch), "enqueue", told)

    def ask_jobs(self, what: str, ids: list[bytes], timeout: float | None, **more: Any) -> Any:
        """A question about jobs; the answer, to be awaited in an AsyncClient. ``more``: of
        protocol.AskJobs."""

        def put(sink: Answer) -> None:
            self._core.ask_jobs(what, ids, sink, **more)

        if what == "result":
            return self._request(put, what, timeout, TimeoutError)
        return self._request(put, what, ASK_S + self._reconnect_s)

    def _begin_close(self, *, wait: bool, cancel: bool) -> None:
        """Cancel the jobs for which a close does not wait."""
        if cancel:
            self.cancel_pending()
        if wait:
            self._do(self._core.cancel_streams)

    def _check_open(self) -> None:
        """Raises why it takes no jobs."""
        self._check_not_closed()
        if self._core.lost is not None:
            raise another(self._core.lost)

    def _check_not_closed(self) -> None:
        self._refuse_fork()
        if self._closed:
            name = type(self).__name__
            raise RuntimeError(f"the client is closed: cannot submit to it; make a new {name}")

    def __dir__(self) -> list[str]:
        """The names that ``help`` shows."""
        return public(super().__dir__())

    def __repr__(self) -> str:
        lost = "lost" if self._outage is None else "reconnecting"
        state = "closed" if self._closed else lost if self._core.lost else "open"
        own = " (private)" if self._daemon is not None else ""
        return f"<gmpd.{type(self).__name__} {state} {self.endpoint}{own}, {self._core.busy} jobs>"

    def _open_link(self, network: Network) -> None:
        self._core.questions.keeps = self._reconnect_s > 0 and self._daemon is None
        self._network = network
        key = self._key
        curve = None if key is None else CurveKeys(key.server, key.secret)
        self._link = Dealer(network, self.endpoint, keys=curve)
        self._core.info["lane"] = self._link.offer_lane()
        self._link.send(self._core.hello())

    def _open_lane(self) -> None:
        """The Welcome of this link's daemon has come."""
        assert self._core.welcome is not None
        fd = self._link.open_lane(self._core.welcome.info.lane)
        if fd is not None:
            self._watch_lane(fd)

    @abstractmethod
    def _watch_lane(self, fd: int) -> None:
        """Take a turn when ``fd`` is readable, too, until the link is renewed or closed."""

    def _drop_link(self) -> None:
        self._link.close()
        self._network.close()

    def _no_answer(self, timeout_s: float) -> DaemonUnreachable:
        if self._key is not None:
            return DaemonUnreachable(
                f"no daemon answered at {self.endpoint} within {timeout_s:g} s: {self._far_why()}"
            )
        return DaemonUnreachable(
            f"no daemon answered at {self.endpoint} within {timeout_s:g} s: it hangs, or is"
            " ending. Its log says more; `gmpd down --now` ends it, `gmpd up` starts one"
        )

    def _far_why(self) -> str:
        """The likely reasons why a daemon on another machine does not answer."""
        if self._link.is_misunderstood:
            return (
                "it ended each handshake, because it has another key of its own than the one that"
                " this client's key names, or is no gmpd: `gmpd keys export` there gives the"
                " right one"
            )
        return (
            "the host is down, its name is wrong, a firewall is between, or `gmpd serve` there does"
            " not listen: see [tcp] in its settings, and `gmpd doctor`"
        )

    def _unknown_key(self) -> NotAllowed:
        assert self._key is not None  # else there is none to refuse
        return NotAllowed(
            f"the daemon at {self.endpoint} does not know the key {self._key.name!r}: it was"
            " revoked, or never added (`gmpd keys ls` there lists them)"
        )

    def _send_out(self) -> bool:
        """Send all that may be sent; returns whether a message has arrived meanwhile."""
        link = self._link
        edge = False
        with DEFER_SIGNALS:
            for frames in self._core.take_outgoing():
                edge = link.send(frames) or edge
            return edge and link.readable

    def _pump(self, expected: bool = False) -> None:
        """Send and read until neither is possible, as the descriptor reports edges only.

        ``expected``: ``readable`` was asked a moment ago.
        """
        link, core = self._link, self._core
        with DEFER_SIGNALS:
            while True:
                for frames in core.take_outgoing():
                    link.send(frames)
                if not expected and not link.readable:
                    return
                expected = False
                self._read()

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
                self._refused(error)
            except Exception as error:  # noqa: BLE001 - a bug: callers are told, not left waiting
                broken = InvariantError(
                    f"a message of the daemon was not handled ({type(error).__name__}: {error}):"
                    " this is a bug in gmpd, please report it with this traceback"
                )
                broken.__cause__ = error
                self._core.lose(broken)

    def _refused(self, error: GmpdError) -> None:
        """The daemon does not serve this client. One that has no room may have some later."""
        if self._outage is not None and isinstance(error, DaemonUnreachable):
            self._outage.link_failed(time.monotonic(), FULL_S)
        else:
            self._core.lose(error)

    def _check_peer(self) -> None:
        lost = self._link.take_disconnect()
        if self._link.is_refused:
            self._core.lose(self._unknown_key())
        elif lost:
            self._pump()  # what the daemon said before its end may have come since the last look
            if self._outage is not None:
                self._outage.link_failed(time.monotonic())
            self._core.disconnected(self._gone())

    def _judge(self, verdict: Verdict) -> None:
        """A tick of the liveness has passed; without a link there is nothing to judge."""
        core = self._core
        if core.lost is not None:
            return
        if verdict is Verdict.ASK:
            core.ping()
        elif verdict is Verdict.GIVE_UP:
            core.disconnected(self._silence())

    # -- without a daemon --------------------------------------------------------------------------

    @abstractmethod
    def _relink(self) -> None:
        """Renew the link, where this face watches its descriptors, and say Hello on it."""

    def _outage_began(self) -> None:
        """For faces that report it."""

    def _look_for_daemon(self) -> None:
        """In each turn: find the next daemon while questions wait for one."""
        core, outage = self._core, self._outage
        if core.lost is None:
            if outage is not None and core.welcome is not None:
                self._outage = None
                self._liveness.pid = core.welcome.info.pid
                self._open_lane()
            return
        if not core.wants_link:
            self._outage = None
            return
        now = time.monotonic()
        if outage is None:
            outage = self._outage = Outage(now, self._reconnect_s)
            self._outage_began()
        match outage.step(now):
            case Step.LINK:
                self._inbox.clear()
                self._relink()
                core.info["lane"] = self._link.offer_lane()
                self._link.send(core.reopen())
            case Step.GIVE_UP:
                self._outage = None
                core.lose(self._none_came_back())
            case Step.NOTHING:
                pass

    def _none_came_back(self) -> DaemonUnreachable:
        said = self._core.lost
        why = f" ({said})" if isinstance(said, DaemonUnreachable) and said.code else ""
        return DaemonUnreachable(
            f"no daemon has served at {self.endpoint} for client.reconnect ="
            f" {self._reconnect_s:g} s{why}: {self._how_to_start()}."
        )

    def _how_to_start(self) -> str:
        """How the user gets a daemon again: one on another machine is started there."""
        if self._key is None:
            return "start one with `gmpd up`"
        return "start it again on its machine (`gmpd serve`)"

    def _gone(self) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"the daemon at {self.endpoint} went away; jobs that it held are lost:"
            f" {self._how_to_start()}; then make a new Client"
        )

    def _silence(self) -> DaemonUnreachable:
        waited = f"has not answered for client.liveness = {self._liveness.tick_s * TICKS:g} s:"
        if self._key is not None:
            return DaemonUnreachable(
                f"the daemon at {self.endpoint} {waited} the network between is cut, its machine is"
                " down, or it was stopped. Its jobs are lost to this client, except durable ones"
            )
        return DaemonUnreachable(
            f"the daemon at {self.endpoint} {waited} it was stopped, or it hangs. Its jobs are lost"
            " to this client: see its log; `gmpd down --now` ends it"
        )

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this client belongs to process {self._pid}, and this is a fork of it"
                f" ({os.getpid()}): make a Client of its own in the child"
            )
