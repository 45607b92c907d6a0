"""The end on the host: a daemon for one bridge, the messages between the two, and its lease.

An engine calls ``exchange`` in a thread of a process on the host. The first call of a bridge starts
a private daemon, which ends with this process; the agent is its client, and knows nothing of what
it passes on. See ``line`` for the lease; the daemon knows when it ends, and keeps to it should this
process stand still.
"""

from __future__ import annotations

import atexit
import os
import secrets
import select
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from gmpd import protocol, versions
from gmpd.client.discovery import Target
from gmpd.client.liveness import Liveness, Verdict
from gmpd.client.private import PrivateDaemon
from gmpd.client.sync import Client
from gmpd.cluster.batches import BATCH_BYTES, Numbered
from gmpd.cluster.exchange import Ask, Told, pack, read_ask
from gmpd.config import Config
from gmpd.errors import DaemonUnreachable, GmpdError
from gmpd.netpoll import Dealer, Network
from gmpd.timeouts import wait_s

#: An exchange that overtook another one waits for that (seconds).
ORDER_S = 1.0

#: The daemon ends by itself this much after its lease, if this process has not ended it (seconds).
BACKSTOP_S = 0.5

#: An exchange waits so much longer for the thread that reads what gathered (seconds).
REST_MORE_S = 0.5

#: Former lives whose ends are remembered.
PAST_MAX = 64

NOT_HERE = "the process of the engine on that host was started again"


class Agent:
    """One life: a daemon and the bridge that it is for. Raises GmpdError when none can start."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.life = secrets.token_hex(8)
        self.ended = ""
        #: Why the engine is about to end this process, and whether an answer has said so.
        self.leaves = ""
        self._told_leaves = False
        #: Jobs that have begun here may take this long to end then.
        self.drain_s: float = settings["drain_s"]
        self._lease_s: float = settings["lease_s"]
        config = Config.load(flags=settings["config"], env={}, files=())
        first = settings["initializer"]
        self._daemon = PrivateDaemon(config, first=first, env=settings["env"])
        if first is not None:
            self._await_first_worker(config)
        self.pid = self._daemon.pid
        self._liveness = Liveness(config.client.liveness)
        self._liveness.pid = self._daemon.pid
        self._tick_at = 0.0
        self._changed = threading.Condition()
        #: To the daemon: on its way, and how many came.
        self._outbox: deque[list[bytes]] = deque()
        self._got = 0
        #: From the daemon, and how many of them were said.
        self._said = Numbered()
        self._told = 0
        self._latest = 0
        #: Exchanges that have come and were not answered.
        self._waiting: set[int] = set()
        self._until = time.monotonic() + self._lease_s
        self._daemon.renew(self._until + BACKSTOP_S)
        #: Until then what the daemon says is left in its socket: each message would wake the thread
        #: of the link and that of an exchange, which waits for more.
        self._rest_until = 0.0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._serve, name="gmpd-agent", daemon=True)
        self._thread.start()

    def _await_first_worker(self, config: Config) -> None:
        """An initializer may fail on this host, and must not cost the jobs that were sent."""
        target = Target.of(self._daemon.endpoint, config)
        try:
            with Client(target=target) as client:
                client.submit(int).result(config.daemon.start_timeout)
        except TimeoutError:
            self._daemon.close()
            waited = f"{config.daemon.start_timeout:g} s (daemon.start_timeout)"
            raise DaemonUnreachable(f"the initializer has not ended there after {waited}") from None
        except BaseException:
            self._daemon.close()
            raise

    def exchange(self, ask: Ask) -> Told:
        """Take the messages of the bridge, and give those of the daemon."""
        with self._changed:
            self._latest = max(self._latest, ask.number)
            if ask.echo + self._lease_s > self._until and not self.ended:
                self._until = ask.echo + self._lease_s
                self._daemon.renew(self._until + BACKSTOP_S)
            self._changed.notify_all()
            self._said.got(ask.got)
            self._take(ask)
            if ask.alone:
                self._told = ask.got
            self._waiting.add(ask.number)
            try:
                self._wait(ask)
            finally:
                self._waiting.discard(ask.number)
                self._changed.notify_all()
            first = self._told
            messages = self._said.since(first, BATCH_BYTES)
            self._told = first + len(messages)
            return self._answer(first, messages)

    def _answer(self, first: int = 0, messages: list[list[bytes]] | None = None) -> Told:
        self._told_leaves = bool(self.leaves)
        return Told(
            self.life, time.monotonic(), self._got, first, messages or [], self.ended, self.leaves
        )

    def begun(self) -> Told:
        """The first answer."""
        told = self._answer()
        told.versions, told.pid = versions.own(), self.pid
        return told

    def _take(self, ask: Ask) -> None:
        self._changed.wait_for(lambda: self._got >= ask.first or self.ended, ORDER_S)
        new = ask.messages[self._got - ask.first :] if self._got >= ask.first else []
        self._outbox.extend(new)
        self._got += len(new)
        if new:
            self._changed.notify_all()
            os.eventfd_write(self._wake, 1)

    def _wait(self, ask: Ask) -> None:
        """Until there is something to say, and a little longer; or, with nothing to say, until a
        later exchange waits as well. In the order of exchanges."""

        def due() -> bool:
            news = self._said.end > self._told or self._latest > ask.number
            news = news or (bool(self.leaves) and not self._told_leaves)
            return bool(self.ended) or (news and ask.number == min(self._waiting))

        self._changed.wait_for(due, wait_s(ask.wait_s))
        if ask.gather_s and self._said.end > self._told and ask.number == min(self._waiting):
            self._rest_until = time.monotonic() + ask.gather_s
            os.eventfd_write(self._wake, 1)
            self._changed.wait_for(self._has_rested, wait_s(ask.gather_s + REST_MORE_S))
            self._rest_until = 0.0

    def _has_rested(self) -> bool:
        return bool(self.ended) or not self._rest_until

    # -- the thread of the link --------------------------------------------------------------------

    def _serve(self) -> None:
        network = Network()
        link = Dealer(network, self._daemon.endpoint)
        died = os.pidfd_open(self._daemon.pid)
        epoll, deaf = select.epoll(), select.epoll()
        epoll.register(link.fd, select.EPOLLIN)
        for fd in (self._wake, died):
            epoll.register(fd, select.EPOLLIN)
            deaf.register(fd, select.EPOLLIN)
        try:
            while not self.ended:
                self._pass_on(link)
                self._judge(link)
                now = time.monotonic()
                rests = self._rest_until > now
                if not rests and self._rest_until:
                    self._rested()
                if self._outbox or (not rests and link.readable):
                    continue
                until = min(self._until, self._tick_at)
                if rests:
                    until = min(until, self._rest_until)
                ready = (deaf if rests else epoll).poll(wait_s(max(0.0, until - now)))
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
                if any(fd == died for fd, _ in ready):
                    self._end("its daemon has ended")
                elif time.monotonic() >= self._until:
                    self._end(f"it heard nothing for {self._lease_s:g} s (cluster.lease)")
        finally:
            epoll.close()
            deaf.close()
            os.close(died)
            link.close()
            network.close()

    def _rested(self) -> None:
        """All that gathered has been read."""
        with self._changed:
            self._rest_until = 0.0
            self._changed.notify_all()

    def _judge(self, link: Dealer) -> None:
        """At each tick: whether the daemon, as of any client, still answers. One that stands
        still would keep its jobs for ever, as this process continues to renew its lease."""
        if time.monotonic() < self._tick_at:
            return
        self._tick_at = time.monotonic() + self._liveness.tick_s
        if not self._said.end:
            return  # it has not heard the Hello of the bridge
        match self._liveness.tick(self._said.end, waits=True):
            case Verdict.ASK:
                link.send([protocol.pack(protocol.Call(0, "ping", {}))])
            case Verdict.GIVE_UP:
                self._end("its daemon does not answer (client.liveness): it was stopped, or hangs")
            case Verdict.NOTHING:
                pass

    def _pass_on(self, link: Dealer) -> None:
        while self._outbox:
            link.send(self._outbox.popleft())
        came: list[list[bytes]] = []
        while (frames := link.recv()) is not None:
            came.append([bytes(frame) for frame in frames])
        if came:
            with self._changed:
                for each in came:
                    self._said.add(each)
                self._changed.notify_all()

    def _end(self, why: str) -> None:
        """Kill the daemon; its workers end with it."""
        with suppress(ProcessLookupError):
            os.kill(self._daemon.pid, signal.SIGKILL)
        with self._changed:  # before its input is closed: no exchange renews its lease any more
            self.ended = self.ended or why
        self._daemon.close()
        with self._changed:
            self._changed.notify_all()

    def await_end(self) -> None:
        """Return once it has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended)

    def await_end_until(self, until_s: float) -> None:
        """Return once it has ended, or at this time of the monotonic clock."""
        with self._changed:
            left_s = max(0.0, until_s - time.monotonic())
            self._changed.wait_for(lambda: self.ended, wait_s(left_s))

    def leave(self, why: str) -> None:
        """Tell the bridge that this process is about to end: by its next answer, which comes now if
        an exchange waits."""
        with self._changed:
            self.leaves = why
            self._changed.notify_all()

    def close(self, why: str = "it was closed") -> None:
        """End it now; from any thread."""
        if not self.ended:
            self._end(why)
        os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)


_agents: dict[str, Agent] = {}
#: Why former lives have ended.
_past: dict[str, str] = {}
#: Why the engine is about to end this process.
_leaves = ""
_lock = threading.Lock()


def exchange(data: bytes) -> bytes:
    """One exchange. Raises ProtocolError for bytes that are none; all else is an answer."""
    ask = read_ask(data)
    if ask.settings is not None:
        return pack(_begin(ask))
    agent = _agents.get(ask.bridge)
    if agent is None or agent.life != ask.life:
        return pack(Told(ask.life, 0.0, ended=_past.get(ask.life, NOT_HERE)))
    if ask.ends:
        agent.close()
    told = agent.exchange(ask)
    if told.ended:
        with _lock:
            _agents.pop(ask.bridge, None)
            _past[ask.life] = told.ended
            if len(_past) > PAST_MAX:
                del _past[next(iter(_past))]
    return pack(told)


def _begin(ask: Ask) -> Told:
    assert ask.settings is not None
    with _lock:
        agent = _agents.get(ask.bridge)
        if agent is None:
            if _leaves:
                return Told("", 0.0, ended=_leaves, versions=versions.own())
            why = versions.conflict(ask.settings["versions"], "the daemon that would use it")
            if why:
                why = why.replace("this daemon", "this host")
                return Told("", 0.0, ended=why, versions=versions.own())
            try:
                agent = _agents[ask.bridge] = Agent(ask.settings)
            except GmpdError as error:
                return Told("", 0.0, ended=str(error), versions=versions.own())
        return agent.begun()


def has_any() -> bool:
    """Whether an agent lives in this process. A handler of signals asks: it takes no lock."""
    return any(not agent.ended for agent in list(_agents.values()))


def await_none() -> None:
    """Return once no agent lives in this process."""
    while True:
        with _lock:
            agent = next((each for each in _agents.values() if not each.ended), None)
        if agent is None:
            return
        agent.await_end()


def drain_all(why: str) -> None:
    """The engine is about to end this process: have each daemon here end the jobs that have begun,
    and the others run elsewhere. Returns when that is done, or when the time for it is over
    (``cluster.drain``); no other life begins here. ``close_all`` ends the rest."""
    global _leaves
    with _lock:
        _leaves = why
        agents = list(_agents.values())
    for agent in agents:
        agent.leave(why)
    until = time.monotonic() + max((agent.drain_s for agent in agents), default=0.0)
    for agent in agents:
        agent.await_end_until(until)


def close_all() -> None:
    """This process ends, or the engine gives this host up."""
    with _lock:
        agents = list(_agents.values())
        _agents.clear()
    for agent in agents:
        agent.close("the engine ended its process on that host")


atexit.register(close_all)
