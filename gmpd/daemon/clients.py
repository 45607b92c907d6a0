"""The clients' side of the coordinator: connections, their messages, and vanished clients.

It never unpacks a user's value, and knows no worker: jobs go to the policy, questions to
``admin``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import msgspec

import gmpd
from gmpd import protocol, versions
from gmpd.config import Config
from gmpd.daemon import job_messages, rights
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.durable import DurableJobs
from gmpd.daemon.faults import Faults
from gmpd.daemon.network_clients import NetworkClients
from gmpd.daemon.traffic import BYTES_PER_TURN, Traffic
from gmpd.errors import NotAllowed, ProtocolError
from gmpd.keys import AllowedClient, Role
from gmpd.netpoll import Connection, Lane, NetworkPeer, Router
from gmpd.protocol import Refusal
from gmpd.sched import events
from gmpd.sched.records import Session, earliest
from gmpd.sched.schedt import Sched

#: Messages taken from one socket before the policy decides: bounds how long a flood on one socket
#: keeps the others waiting, while a batch is still worth deciding about at once.
MESSAGES_PER_TURN = 64

#: libzmq tells of a connection's end before the socket itself knows of it: a probe at once may
#: still go through, so there is another after this.
PROBE_AGAIN_NS = 100_000_000

#: The messages of a client that only asks.
_OF_ADMINS = protocol.Call, protocol.AskJobs, protocol.Bye, protocol.Hello
#: Questions that wait for ends of jobs; others are answered at once.
AWAITING_MAX = 1024

#: A client that is disconnected has this long to read why.
READ_WHY_NS = 200_000_000


class Clients:
    """Every client by the routing id of its connection.

    ``ask`` takes a client's question: (peer, its number, method, parameters); its reply, or None
    when that comes later. ``procs`` gives the number of Ps.
    """

    def __init__(
        self,
        config: Config,
        epoch: int,
        sched: Sched,
        router: Router,
        traffic: Traffic,
        procs: Callable[[], int],
        ask: Callable[[bytes, int, str, dict[str, Any]], protocol.Reply | None],
        faults: Faults,
        deadlines: Deadlines,
    ) -> None:
        self._limits = config.limits
        self._epoch = epoch
        self._sched = sched
        self._router = router
        self._traffic = traffic
        self._procs = procs
        self._ask = ask
        self._faults = faults
        self._deadline = deadlines.new(self._due)
        #: Connections to be cut, and when.
        self._cutting: deque[tuple[int, Connection]] = deque()
        self._sessions: dict[bytes, Session] = {}
        #: Takes messages about durable jobs.
        self.durable: DurableJobs
        #: Those of other machines, if such may connect.
        self.network: NetworkClients | None = None
        #: Questions of clients that know ends of jobs before they are known here.
        self._awaiting: list[tuple[bytes, protocol.CallAfter]] = []
        #: Called with the number of each session whose client has gone.
        self.on_left: Callable[[int], object] = int
        #: Those that only ask, of any version.
        self._admins: set[bytes] = set()
        #: Vanished ones, in the order in which their grace ends.
        self._lost: deque[tuple[int, Session]] = deque()
        #: When to look again for vanished peers: see ``someone_left``.
        self._probe_at: int | None = None
        #: Whether the program that started this daemon has yet to say Hello: a daemon that cannot
        #: serve stays to tell it why.
        self.awaits_starter = False
        #: The last message of a daemon that ends.
        self._gone: protocol.Gone | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    # -- they speak --------------------------------------------------------------------------------

    def receive(self) -> None:
        """Take a turn's worth of messages of this machine's clients."""
        self._receive(self._router)

    def receive_network(self) -> None:
        """And of other machines' clients."""
        self._receive(self._over_network.router)

    def _receive(self, router: Router) -> None:
        traffic = self._traffic
        enough = traffic.bytes_in + BYTES_PER_TURN
        for n in range(MESSAGES_PER_TURN):
            received = router.recv(expected=not n) if traffic.bytes_in < enough else None
            if received is None:
                return
            self._take(router, *received)

    def receive_lane(self, lane: Lane) -> None:
        """Take a turn's worth of messages that have come over a lane."""
        router = self._router
        for _ in range(MESSAGES_PER_TURN):
            received = router.recv_lane(lane)
            if received is None:
                return
            self._take(router, *received)

    def _take(self, router: Router, peer: bytes, frames: list[Any]) -> None:
        try:
            message = protocol.unpack(frames[0], protocol.FROM_CLIENT, len(frames) - 1)
            self._traffic.count_in(message, frames)
            if router is self._router:
                self._heard(peer, message, frames[1:])
            else:
                self._heard_over_network(peer, message, frames[1:])
        except ProtocolError as error:
            self._sched.counters.dropped["bad_client_message"] += 1
            self._refuse(peer, Refusal.MALFORMED, str(error))
        except Exception as error:  # noqa: BLE001 - a bug: see daemon.faults
            self._failed(peer, frames[0], error)

    @property
    def _over_network(self) -> NetworkClients:
        assert self.network is not None  # else none of their messages could come
        return self.network

    def _router_of(self, peer: bytes) -> Router:
        return self._over_network.router if type(peer) is NetworkPeer else self._router

    def _client_at(self, peer: bytes) -> AllowedClient | None:
        """The client of another machine that is at the other end; None: one of this machine.

        Raises NotAllowed if its key is not known any more.
        """
        if type(peer) is not NetworkPeer:
            return None
        client = self._over_network.client(peer)
        if client is None:
            raise NotAllowed(f"the key {peer.name!r} is not known any more")
        return client

    def _heard_over_network(
        self, peer: bytes, message: protocol.FromClient, frames: list[Any]
    ) -> None:
        try:
            client = self._client_at(peer)
            assert client is not None  # of no such router comes another
            self._heard(peer, rights.screen(client, message, frames), frames)
        except NotAllowed as error:
            self._forbid(peer, message, error)

    def sees(self, peer: bytes) -> str | None:
        """The owner whose jobs a client may know; None: all jobs."""
        client = self._client_at(peer)
        return None if client is None or client.role is Role.ADMIN else client.name

    def _unregistered(self, session: Session, fid: int) -> str:
        """Why a function of a client of another machine cannot be called; empty if it can."""
        fn = session.functions.get(fid)
        return "" if fn is None else self._over_network.registry.lacks(fn.name)

    def _forbid(self, peer: bytes, message: protocol.FromClient, error: NotAllowed) -> None:
        """Tell a client that it may not do that; nothing has changed."""
        self._sched.counters.dropped["not_allowed"] += 1
        if isinstance(message, protocol.Call | protocol.Enqueue | protocol.AskJobs):
            self.send(peer, protocol.Reply(message.request, False, {"not_allowed": str(error)}))
        else:
            self._refuse(peer, Refusal.NOT_ALLOWED, str(error))

    def revoked(self, peer: NetworkPeer, connection: Connection) -> None:
        """The key of a connected client has changed: it is told, and cut in a moment."""
        text = f"the key {peer.name!r} was changed or revoked"
        self._refuse(peer, Refusal.NOT_ALLOWED, text)
        self._cut_soon(connection)
        self.disconnect(peer)

    def _cut_soon(self, connection: Connection) -> None:
        self._cutting.append((time.monotonic_ns() + READ_WHY_NS, connection))
        self._set_deadline()

    def _failed(self, peer: bytes, envelope: bytes, error: Exception) -> None:
        """A handler raised: this client is told why and disconnected, its jobs are dropped."""
        session = self._sessions.get(peer)
        whose = f"client {session.name!r}" if session is not None else "a client without a session"
        self._faults.failed(whose, f"{_kind(envelope)} of {whose}", error)
        self._refuse(
            peer,
            Refusal.FAILED,
            f"its handling failed ({type(error).__name__}: {error}): see its log",
        )
        if (router := self._router_of(peer)).last_peer == peer:
            self._cut_soon(router.last_connection())
        self.disconnect(peer)

    def disconnect(self, peer: bytes) -> None:
        """Forget a client whose session a failed handler may have left half done."""
        session = self._sessions.get(peer)
        try:
            self._drop(peer)
        except Exception as error:  # noqa: BLE001 - what is half done may be what stands in the way
            name = "" if session is None else session.name
            self._faults.failed(f"client {name!r}", "the end of its session", error)

    def _heard(  # noqa: C901 - a case per message
        self, peer: bytes, message: protocol.FromClient, frames: list[Any]
    ) -> None:
        session = self._sessions.get(peer)
        if session is None:
            if not isinstance(message, protocol.Hello):
                raise ProtocolError("the first message must be Hello")
            self._greet(peer, message)
            return
        if peer in self._admins and not isinstance(message, _OF_ADMINS):
            raise ProtocolError(
                f"{type(message).__name__} of a client whose Hello declared calls only"
            )
        sched, sid, now = self._sched, session.sid, time.monotonic_ns()
        match message:
            case protocol.Submit(fid):
                why = self._unregistered(session, fid) if session.owner else ""
                job_messages.submit(sched, sid, message, frames, now, why)
            case protocol.Ack(outcomes):
                sched.handle(events.Acknowledged(sid, outcomes), now)
            case protocol.Define() | protocol.Undefine() | protocol.Cancel():
                job_messages.apply(sched, session, message, frames, now)
            case protocol.ForceCancel(seqs):
                sched.handle(events.Cancelled(sid, seqs, force=True), now)
            case protocol.Recall(seqs):
                sched.handle(events.Recalled(sid, seqs), now)
            case protocol.Pull(seq, n):
                sched.handle(events.Pulled(sid, seq, n), now)
            case protocol.CallAfter(jobs=jobs) if len(
                self._awaiting
            ) < AWAITING_MAX and not session.jobs.keys().isdisjoint(jobs):
                self._awaiting.append((peer, message))
            case protocol.Call(request, method, params) | protocol.CallAfter(
                request, method, params
            ):
                reply = self._ask(peer, request, method, params)
                if reply is not None:
                    self.send(peer, reply)
            case protocol.Enqueue(request, fid) if session.owner and (
                why := self._unregistered(session, fid)
            ):
                self.send(peer, protocol.Reply(request, False, {"not_registered": why}))
            case protocol.Enqueue() | protocol.AskJobs():
                self.durable.receive(peer, session, message, frames, self.sees(peer))
            case protocol.Waive():
                sched.handle(events.RoomDeclined(sid), now)
            case protocol.Bye():
                self._drop(peer)
            case protocol.Hello():
                self._greet(peer, message)
            case _:
                assert_never(message)

    def answer_awaiting(self) -> bool:
        """Answer the questions for which the ends of jobs have come; whether there were any that
        waited."""
        if not self._awaiting:
            return False
        waited, self._awaiting = self._awaiting, []
        for peer, message in waited:
            try:
                if peer in self._sessions:
                    self._heard(peer, message, [])
            except Exception as error:  # noqa: BLE001 - a bug: see daemon.faults
                self._failed(peer, protocol.pack(message), error)
        return True

    def lane_of(self, session: Session) -> Lane | None:
        """The lane of a session's client."""
        return self._router.lane_of(session.link)

    def _greet(self, peer: bytes, message: protocol.Hello) -> None:
        dropped = self._sched.counters.dropped
        try:
            version = protocol.agree(message)
        except ProtocolError as error:
            dropped["version"] += 1
            self._refuse(peer, Refusal.VERSION, str(error))
            return
        client = self._client_at(peer)
        plain = message.role == protocol.ADMIN or (client is not None and not client.pickle)
        why = "" if plain else incompatible(message.info)
        if why:
            dropped["version"] += 1
            self._refuse(peer, Refusal.INCOMPATIBLE, why)
            return
        if len(self._sessions) >= self._limits.sessions:
            dropped["sessions"] += 1
            text = f"limits.sessions = {self._limits.sessions} clients are connected"
            self._refuse(peer, Refusal.SESSIONS, text)
            return
        if peer not in self._sessions:
            self._sessions[peer] = self._open(peer, message, "" if client is None else client.name)
            if message.role == protocol.ADMIN:
                self._admins.add(peer)
            else:
                self.awaits_starter = False
            if client is not None and isinstance(peer, NetworkPeer):
                self._over_network.greeted(peer, client)
        self._router_of(peer).identified()
        welcome = self.welcome(version)
        if client is not None:
            welcome = self._for_network(welcome, client)
        elif message.info.lane:
            welcome = with_lane(welcome, self._router.open_lane(message.info.lane))
        self.send(peer, welcome)
        if self._gone is not None:
            self.send(peer, self._gone)

    def _open(self, peer: bytes, message: protocol.Hello, owner: str) -> Session:
        sched, info = self._sched, message.info
        key = message.session[:12].hex()
        name = "".join(each if each.isprintable() else "?" for each in info.name[:64])
        opened = events.SessionOpened(
            sched.next_sid, peer, name, info.waits, key, owner, info.progress,
            info.answers and bool(info.lane) and not owner,
        )  # fmt: skip
        sched.handle(opened, time.monotonic_ns())
        return sched.sessions[opened.sid]

    def welcome(self, version: int = protocol.VERSION) -> protocol.Welcome:
        """The answer to a Hello; a worker, as the client of its Gs' children, gets the same."""
        limits = self._limits
        info = protocol.DaemonInfo(
            procs=self._procs(),
            pid=os.getpid(),
            version=gmpd.__version__,
            python=versions.python(),
        )
        batch = min(limits.batch_jobs, protocol.BATCH_JOBS_MAX)
        return protocol.Welcome(
            version, self._epoch, limits.client_window, batch, limits.value_bytes, info
        )

    def _for_network(self, welcome: protocol.Welcome, client: AllowedClient) -> protocol.Welcome:
        """A Welcome with what a client of another machine has to know."""
        info = msgspec.structs.replace(welcome.info, role=str(client.role), plain=not client.pickle)
        value_bytes = min(welcome.value_bytes, self._over_network.value_bytes)
        return msgspec.structs.replace(welcome, value_bytes=value_bytes, info=info)

    def _refuse(self, peer: bytes, code: Refusal, reason: str) -> None:
        self._router_of(peer).send(peer, [protocol.pack_refusal(code, reason)])

    # -- they are told -----------------------------------------------------------------------------

    def send(self, peer: bytes, message: protocol.ToClient, frames: Sequence[Any] = ()) -> None:
        """Send a message to a client; one that cannot be reached has vanished."""
        data = protocol.pack(message)
        self._traffic.count_out(message, len(data))
        if not self._router_of(peer).send(peer, [data, *frames]):
            self._lose(peer)

    def farewell(self, reason: str, code: protocol.Ending) -> None:
        """The daemon ends: tell all clients, and those whose Hello is yet to be read."""
        self._gone = protocol.Gone(reason, code)
        for peer in list(self._sessions):
            self.send(peer, self._gone)

    # -- they leave --------------------------------------------------------------------------------

    def someone_left(self) -> None:
        """Some client's connection ended: an empty probe finds which ones cannot be reached."""
        left = self._router.take_disconnects()
        if self.network is not None:
            left = self.network.router.take_disconnects() or left
        if left:
            self._probe_at = time.monotonic_ns() + PROBE_AGAIN_NS
            self._set_deadline()
            self._probe()

    def _due(self, now: int) -> None:
        """Look again for vanished clients whose time is over, and forget them."""
        if self._probe_at is not None and self._probe_at <= now:
            self._probe_at = None
            self._probe()
        while self._cutting and self._cutting[0][0] <= now:
            self._router.cut(self._cutting.popleft()[1])
        while self._lost and self._lost[0][0] <= now:
            self._close(self._lost.popleft()[1], now)
        self._set_deadline()

    def _set_deadline(self) -> None:
        """To be called when one of these has changed."""
        due = earliest(
            self._probe_at,
            self._lost[0][0] if self._lost else None,
            self._cutting[0][0] if self._cutting else None,
        )
        self._deadline.set(due)

    def _probe(self) -> None:
        nothing = [protocol.pack(protocol.Running([]))]
        for peer in list(self._sessions):
            if not self._router_of(peer).send(peer, nothing):
                self._lose(peer)

    def _lose(self, peer: bytes) -> None:
        """A client vanished without a word: its jobs continue for ``limits.client_grace``."""
        session = self._forget(peer)
        if session is not None:
            grace_ns = int(self._limits.client_grace * 1e9)
            self._lost.append((time.monotonic_ns() + grace_ns, session))
            self._set_deadline()

    def _drop(self, peer: bytes) -> None:
        session = self._forget(peer)
        if session is not None:
            self._close(session, time.monotonic_ns())

    def _forget(self, peer: bytes) -> Session | None:
        self._admins.discard(peer)
        self._router.drop_lane(peer)
        if isinstance(peer, NetworkPeer):
            self._over_network.left(peer)
        self.durable.forget(peer)
        session = self._sessions.pop(peer, None)
        if session is not None:
            self.on_left(session.sid)
        return session

    def _close(self, session: Session, now: int) -> None:
        self._sched.handle(events.SessionClosed(session.sid), now)


def with_lane(welcome: protocol.Welcome, name: bytes) -> protocol.Welcome:
    """A Welcome that names this end of a lane."""
    info = msgspec.structs.replace(welcome.info, lane=name)
    return msgspec.structs.replace(welcome, info=info)


def _kind(envelope: bytes) -> str:
    """The kind of a message, as far as it can be told."""
    try:
        return type(protocol.unpack(envelope, protocol.FROM_CLIENT)).__name__
    except ProtocolError:
        return "a message"


def incompatible(info: protocol.Info) -> str:
    """Why a client's values are unsafe for this daemon's workers, or theirs for it; "" if not."""
    why = "" if info.plain else versions.conflict(msgspec.structs.asdict(info), "this program")
    if not why:
        return ""
    return (
        f"{why}, and functions or values of one may crash the other. Start a daemon of the same"
        " versions (`python -m gmpd.cli up` with this program's Python), or set GMPD_RUNTIME_DIR to"
        " a directory of its own: a private daemon starts there"
    )
