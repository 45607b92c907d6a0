"""``python -m gmpd.cluster.bridge``: the process of a P whose cores are another machine's.

It lives as a worker does: started by the daemon with shared memory and settings, ended with it.
``relay`` knows what is said, ``line`` when; this module has the sockets, the engine and the clock.
"""

from __future__ import annotations

import os
import secrets
import select
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

import msgpack

from gmpd import inherited, protocol, versions
from gmpd.cluster.exchange import Ask, pack, read_told
from gmpd.cluster.line import Line
from gmpd.cluster.port import ClusterError, Engine, open_engine
from gmpd.cluster.relay import HostLost, Relay, unreadable
from gmpd.codec import encode_error
from gmpd.daemon import process
from gmpd.daemon.shm import Slot, WorkerShm
from gmpd.errors import ProtocolError
from gmpd.netpoll import Dealer, Network
from gmpd.protocol import Outcome, Stage
from gmpd.timeouts import wait_s

#: The coordinator has this long to hear why a bridge ends (seconds).
FAULT_S = 5.0
#: And the agent, that it may end its daemon.
ENDS_S = 1.0
#: Last messages are given this long to leave (ms).
LINGER_MS = 500
EXIT_FAULT = 3

_ROUND, _ASLEEP_NS, _SLEPT_NS = int(Slot.ROUND), int(Slot.ASLEEP_NS), int(Slot.SLEPT_NS)
_BATCHES_AWAY, _BATCHES = int(Slot.BATCHES_AWAY), int(Slot.BATCHES)
_AT_HOST, _FENCE_NS = int(Slot.AT_HOST), int(Slot.FENCE_NS)


class Bridge:
    """One host. All on one thread, except that the engine's answers come on its own."""

    def __init__(self, settings: dict[str, Any], shm: WorkerShm, network: Network) -> None:
        self._settings = settings
        self._shm = shm
        self._network = network
        self._link = Dealer(network, settings["endpoint"])
        self._host: str = settings["host"]
        self._id = secrets.token_hex(12)
        self._engine: Engine | None = None
        self._line: Line | None = None
        self._relay: Relay | None = None
        #: Answers of the engine, by number of their exchange.
        self._answers: deque[tuple[int, bytes | BaseException]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        for fd in (self._wake, self._link.fd, self._link.monitor_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._sent = 0
        self._greeted = self._draining = self._ended = self._leaves = False

    # -- it begins ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have the host's daemon started. Raises HostLost or ClusterError when it takes no work."""
        settings = self._settings
        self._engine = engine = open_engine(settings["engine"], settings["engine_settings"])
        lease_s: float = settings["lease_s"]
        for_agent = {
            "lease_s": lease_s,
            "drain_s": settings["drain_s"],
            "config": settings["host_config"],
            "versions": versions.own(),
            "initializer": settings["initializer"],
            "env": settings["env"],
        }
        begins = Ask(self._id, "", 0, settings=for_agent)
        if (size := len(pack(begins))) > engine.frame_bytes:
            raise HostLost(
                f"the initializer's arguments have {size} bytes, and the engine takes"
                f" {engine.frame_bytes}: write them to a file that both machines have, and pass its"
                " path"
            )
        self._send(engine, begins)
        until = time.monotonic() + settings["start_timeout"]
        while not self._answers:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise HostLost(
                    f"it did not answer within daemon.start_timeout = {settings['start_timeout']:g}"
                    f" s: {self._silent()}?"
                )
            # Messages wait; asked for none, the link would wake this thread again and again.
            _ = self._link.readable
            self._sleep(left_s)
        _, answer = self._answers.popleft()
        if isinstance(answer, BaseException):
            raise HostLost(f"{type(answer).__name__}: {answer}")
        told, now = read_told(answer), time.monotonic()
        if told.ended:
            raise HostLost(told.ended)
        if why := versions.conflict(told.versions or {}, f"host {self._host}"):
            raise HostLost(why)
        self._line = Line(self._id, told.life, lease_s, told.clock, now)
        self._relay = Relay(
            self._host, settings["cores"], self._shm.claims.claim, engine.frame_bytes
        )
        info = {**versions.own(), "pid": os.getpid(), "name": "bridge", "progress": True}
        hello = protocol.hello("client", secrets.token_bytes(12), info)
        self._line.say([protocol.pack(hello)])

    def _silent(self) -> str:
        """The likely reason that a host does not give its first answer."""
        if self._settings["initializer"] is not None:
            return "does the initializer take longer there"
        return "are all threads of the engine's process there busy"

    def _send(self, engine: Engine, ask: Ask) -> None:
        number = ask.number

        def answered(answer: bytes | BaseException) -> None:
            self._answers.append((number, answer))
            os.eventfd_write(self._wake, 1)

        engine.send(self._host, pack(ask), answered)

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop. Raises HostLost when the host is gone."""
        assert self._line is not None
        assert self._relay is not None
        assert self._engine is not None
        line, relay, engine = self._line, self._relay, self._engine
        while not self._ended:
            self._shm.slots[_ROUND] += 1
            self._take_messages(relay)
            self._take_answers(line, relay)
            now = time.monotonic()
            # Before anything is sent that renews the lease: this process may be killed at any time.
            self._fence(line)
            self._judge(line, relay, now)
            if line.room and not self._draining:
                relay.pump()
            relay.confirm(now=bool(relay.to_host) or not line.is_away)
            while relay.to_host:
                line.say(relay.to_host.popleft())
            while (ask := line.next_ask(now, relay.ahead.gather_s())) is not None:
                self._send(engine, ask)
            self._report(relay)
            self._count(line, relay)
            if self._draining and relay.is_idle:
                if not relay.runs_on:
                    self._shm.slots[_FENCE_NS] = 0
                self._say(protocol.Bye("stopped"))
                return
            if not (self._answers or self._link.readable):
                self._sleep(max(0.0, line.next_due() - now))

    def _fence(self, line: Line) -> None:
        """Should this process end now, nothing that it has sent runs at the host from then on."""
        self._shm.slots[_FENCE_NS] = int(line.lost_at * 1e9)

    def _judge(self, line: Line, relay: Relay, now: float) -> None:
        """Whether the host is lost, or ready, or about to end."""
        if relay.failure:
            raise HostLost(relay.failure)
        if line.is_lost(now):
            silent = f"it did not answer for {self._settings['lease_s']:g} s (cluster.lease)"
            raise HostLost(line.why or silent)
        if relay.welcome is not None and not self._greeted:
            self._greeted = True
            self.greet(serves=True)
        if line.leaves and self._greeted and not self._leaves:
            self._leaves = True
            self._say(protocol.Leaves(line.leaves))

    def _count(self, line: Line, relay: Relay) -> None:
        """For the status of the host."""
        slots = self._shm.slots
        slots[_BATCHES_AWAY], slots[_AT_HOST] = line.away, relay.ahead.jobs

    def _sleep(self, left_s: float) -> None:
        slots = self._shm.slots
        began = time.monotonic_ns()
        slots[_ASLEEP_NS] = began
        self._epoll.poll(wait_s(left_s))
        slots[_ROUND] += 1
        slots[_SLEPT_NS] += time.monotonic_ns() - began
        slots[_ASLEEP_NS] = 0
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        if self._link.take_disconnect():
            raise SystemExit(f"gmpd bridge to {self._host}: the link to the coordinator was cut")

    def _take_messages(self, relay: Relay) -> None:
        while (frames := self._link.recv()) is not None:
            message = protocol.unpack(frames[0], protocol.TO_WORKER)
            match message:
                case protocol.Stop(drain):
                    if drain and not self._draining:
                        relay.recall()
                    self._draining = True
                    self._ended = not drain
                case protocol.Refused(reason=reason):
                    raise SystemExit(f"the coordinator refused this bridge: {reason}")
                case _:
                    relay.told(message, frames[1:])
            self._shm.took()

    def _take_answers(self, line: Line, relay: Relay) -> None:
        while self._answers:
            number, answer = self._answers.popleft()
            self._shm.slots[_BATCHES] += 1
            now = time.monotonic()
            if isinstance(answer, BaseException):
                line.failed(number, f"{type(answer).__name__}: {answer}", now)
                continue
            try:
                for frames in line.answered(number, read_told(answer), now):
                    relay.heard(frames, int(now * 1e9))
            except ProtocolError as error:
                raise HostLost(unreadable(error)) from error

    # -- to the coordinator ------------------------------------------------------------------------

    def greet(self, *, serves: bool) -> None:
        """The first message to the coordinator."""
        settings = self._settings
        info = {
            **versions.own(),
            "p": settings["p"],
            "epoch": settings["epoch"],
            "pid": os.getpid(),
            "secret": settings["secret"],
            "serves": serves,
        }
        self._say(protocol.hello("worker", b"", info))

    def _report(self, relay: Relay) -> None:
        """Outcomes are safe in shared memory before they are sent."""
        while relay.to_coordinator:
            message, frames = relay.to_coordinator.popleft()
            if isinstance(message, protocol.Finished):
                self._store(message, frames)
                self._sent += len(message.tokens)
                self._shm.sent(self._sent)
            self._say(message, frames)

    def _store(self, message: protocol.Finished, frames: list[Any]) -> None:
        specials = message.specials or {}
        buffers = protocol.split_buffers(message.buffer_counts, len(message.tokens), frames)
        for row, token in enumerate(message.tokens):
            outcome = specials[row][0] if row in specials else Outcome.OK
            if outcome in (Outcome.OK, Outcome.ERROR):
                us = message.ran_us[row]
                self._shm.store(token, outcome, message.payloads[row], us, us, buffers[row])

    def _say(self, message: protocol.Message, frames: Any = ()) -> None:
        self._shm.sends()
        self._link.send([protocol.pack(message), *frames])

    # -- it ends -----------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Say why the host is not there, and wait until that was heard."""
        if not self._greeted:
            self.greet(serves=False)
        self._say(protocol.Fault(Stage.HOST, self._host, encode_error(error)))
        until = time.monotonic() + FAULT_S
        while self._link.wait(wait_s(until - time.monotonic())):
            frames = self._link.recv()
            if frames and isinstance(protocol.unpack(frames[0], protocol.TO_WORKER), protocol.Stop):
                return

    def close(self) -> None:
        """Let the agent go, and the coordinator read what was sent."""
        if self._engine is not None:
            if self._line is not None:
                self._end_agent(self._engine, self._line)
            self._engine.close()
        self._link.close(LINGER_MS)
        self._network.close_gently(LINGER_MS)

    def _end_agent(self, engine: Engine, line: Line) -> None:
        """Have it end its daemon. While it has not said so, jobs there are taken to run until the
        end of its lease."""
        self._answers.clear()
        self._send(engine, line.last_ask())
        until = time.monotonic() + ENDS_S
        while time.monotonic() < until:
            while self._answers:
                number, answer = self._answers.popleft()
                with suppress(ProtocolError):
                    if isinstance(answer, BaseException) or not (told := read_told(answer)).ended:
                        continue
                    line.answered(number, told, time.monotonic())
                    if self._shm.slots[_FENCE_NS]:
                        self._fence(line)
                    return
            _ = self._link.readable, self._link.take_disconnect()
            self._epoll.poll(wait_s(until - time.monotonic()))


def main(argv: list[str]) -> int:
    """``argv``: the descriptor of the shared memory. Settings come as msgpack on standard input."""
    inherited.settle()
    settings = msgpack.unpackb(
        sys.stdin.buffer.read(), use_list=False, unicode_errors="surrogateescape"
    )
    process.settle_process(settings)
    os.dup2(2, 1)  # libraries of engines print; jobs do not, here
    shm = WorkerShm(int(argv[1]))
    os.close(int(argv[1]))
    shm.slots[Slot.EPOCH] = settings["epoch"]
    shm.slots[Slot.PID] = os.getpid()
    bridge = Bridge(settings, shm, Network())
    try:
        bridge.begin()
        bridge.run()
    except (HostLost, ClusterError, ProtocolError) as error:
        bridge.fail(error)
        return EXIT_FAULT
    finally:
        bridge.close()
    return 0


if __name__ == "__main__":
    process.leave(main(sys.argv))
