"""The worker process: one P in it, its link to the coordinator, its leases.

The run loop is ``runtime.loop.Loop``; this module feeds it fresh Gs from the wire and sends
their outcomes back: at once when nothing is left to do, gathered while there is. It never decides
which P gets work (``sched``) nor unpacks the envelope by itself (``protocol``).
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

import msgpack

from gmpd import inherited, protocol, versions
from gmpd.allocator import TRIM_BYTES
from gmpd.codec import Blob, encode_error, stand_in, too_large
from gmpd.daemon import output, process, recording
from gmpd.daemon.answers import Answers
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.beats import Beats
from gmpd.daemon.declared import declared_in, missing_among
from gmpd.daemon.definitions import Definitions
from gmpd.daemon.farewell import Farewell, await_stop
from gmpd.daemon.firsts import Firsts
from gmpd.daemon.fitness import Fitness, no_thread
from gmpd.daemon.imported import ImportReports
from gmpd.daemon.initialized import Base, InitializedAttempt, run_initializer
from gmpd.daemon.isolated import IsolatedAttempt
from gmpd.daemon.lastwords import leave_stacks, leave_words
from gmpd.daemon.lease_run import RUN_BYTES, LeaseRun, may_run_as_one
from gmpd.daemon.leased import Leased
from gmpd.daemon.migration import ChildMigration
from gmpd.daemon.outcomes import (
    GATHER_MAX,
    GATHER_NS_MAX,
    OutcomeBatch,
    is_due,
    items,
)
from gmpd.daemon.questions import answer
from gmpd.daemon.reports import Reports
from gmpd.daemon.shm import Slot, WorkerShm
from gmpd.daemon.threads import Threads
from gmpd.daemon.withheld import Withheld
from gmpd.daemon.worker_loop import new_loop
from gmpd.errors import ProtocolError, Unserializable
from gmpd.netpoll import Dealer, Network
from gmpd.protocol import Outcome, Wear
from gmpd.runtime import log_records
from gmpd.runtime.coro import leave_fork
from gmpd.runtime.m import COMPUTING
from gmpd.runtime.remote import Address, ChanMessage, ChanRouter
from gmpd.runtime.stats import counters

#: Counters are shown this often while P is busy (it takes 2 µs), and whenever it falls asleep.
PUBLISH_NS = 2_000_000
#: Exit codes are for people: user code can end the process with any, so nothing is concluded from
#: them. Cannot serve: an import or the initializer failed, and the coordinator was told.
EXIT_FAULT = 3
#: The coordinator has closed the link, or a message of it was not handled.
EXIT_CUT = 4
#: Last messages are given this long to leave (ms).
LINGER_MS = 500
#: A worker that cannot serve ends when the coordinator has heard why, or after this long (seconds).
FAULT_S = 10.0


class Worker:
    """The state of the M that holds P; other Ms touch only the Attempt that they run."""

    def __init__(self, settings: dict[str, Any], shm: WorkerShm, network: Network) -> None:
        self.shm = shm
        self.p: int = settings["p"]
        #: It is there for one job.
        self.isolated: bool = settings["isolated"]
        self._new_attempt: type[Attempt] = IsolatedAttempt if self.isolated else Attempt
        if settings["initializer"] is not None:
            self._new_attempt = InitializedAttempt
        #: The initializer's context for each job.
        self.base = Base()
        self.loop = new_loop(settings)
        self.value_bytes: int = settings["value_bytes"]
        #: Guards interrupts of threads: see Attempt._leave_guarded.
        self.interrupts = threading.Lock()
        self.network = network
        self.link = Dealer(network, settings["endpoint"])
        os.register_at_fork(after_in_child=self._in_fork)
        self.router = ChanRouter(
            (self.p, settings["epoch"]), self.loop, self._post, self.value_bytes
        )
        self.migration = ChildMigration(self.loop, self._send, self.router, self.value_bytes)
        self.functions = Definitions(settings["imports"])
        #: Leases that have not ended, by token.
        self.attempts: dict[int, Attempt] = {}
        self._listen(settings)
        #: Those whose time limit has passed and whose frames have not ended.
        self.overrunning: dict[int, Attempt] = {}
        self.answers = Answers(shm)
        self.withheld = Withheld(settings["worker_results"], shm)
        #: Tokens of those that were another P's before and have not begun.
        self._stolen: set[int] = set()
        #: Begun, not ended, and the coordinator does not know yet that they began.
        self.unreported: dict[int, Attempt] = {}
        #: Outcomes that have not been sent.
        self.outcomes = OutcomeBatch()
        #: How many were sent so far.
        self._sent = 0
        #: Leases that have not begun; and how long those of them take that are not quick.
        self.fresh = self.slow_ns = 0
        #: Set aside, and the coordinator does not know yet.
        self._aside: list[Attempt] = []
        self._was_revoked = self._draining = False
        self.flushed_ns = self._published_ns = 0
        #: Claims a lease, unless it was revoked.
        self.claim: Callable[[int, int], bool] = shm.begin
        self.firsts = Firsts(shm, self.loop.p)
        #: For the Hello: the functions of the modules of this daemon.
        self._found: dict[str, Any] = {}
        self._fitness = Fitness(
            lambda: self.loop.sysmon.thread, settings["memory"], settings["worker_calls"]
        )
        self._farewell = Farewell(self, settings["grace"])

    def _listen(self, settings: dict[str, Any]) -> None:
        """The run loop's reports."""
        self._ring = self.loop.p.ring
        self.loop.p.status_slots = self.shm.slots[Slot.ROUND : Slot.LOOKS + 1]
        self.loop.p.on_poll = self._on_poll
        self.loop.p.on_defer = self._set_aside
        self.threads = Threads(self.shm, self.loop.p)
        self.reports = Reports(self.attempts, self.loop.p, settings["job_output"], self._send)
        self._looks: list[Callable[[], None]] = [self.check_fitness]
        if settings["watch"]:
            self._looks.append(ImportReports(self._send).look)
        self._beats = Beats(self.loop, self.shm, self._looks)

    def _in_fork(self) -> None:
        self.loop.p.forked = True

    # -- attempts report ---------------------------------------------------------------------------

    def begin(self, attempt: Attempt) -> bool:
        """An attempt is about to run; this M holds P. False when the coordinator has revoked it."""
        self.fresh -= 1
        self.slow_ns -= attempt.slow_ns
        now = time.monotonic_ns()
        if not self.claim(attempt.token, now):
            return False
        attempt.began_ns = now
        self.unreported[attempt.token] = attempt
        if self._fitness.calls_left:
            self._count_down()
        if self._stolen:
            self._count_stolen(attempt)
        if attempt.options is not None and "timeout" in attempt.options:
            attempt.timer = self.loop.p_callbacks.later(attempt.options["timeout"], attempt.expire)
        return True

    def check_fitness(self, error: BaseException | None = None) -> None:
        """Look whether this process still does what jobs need; ``error``: one has just failed of
        it. If not, take up nothing more."""
        if self.claim is _claim_nothing or self.isolated:
            return
        flaw = self._fitness.flaw()
        if not flaw and isinstance(error, RuntimeError):
            flaw = no_thread()
        if flaw:
            self._retire(flaw)
        elif excess := self._fitness.excess():
            self._send(protocol.Unfit(excess, Wear.LARGE))

    def _count_down(self) -> None:
        self._fitness.calls_left -= 1
        if not self._fitness.calls_left and not self.isolated:
            self._retire("it has begun as many jobs as limits.worker_calls allows", Wear.USED)

    def _retire(self, why: str, wear: Wear = Wear.UNFIT) -> None:
        """Take up no more jobs; the coordinator revokes those that have not begun."""
        self.claim = _claim_nothing
        self._send(protocol.Unfit(why, wear))

    def _count_stolen(self, attempt: Attempt) -> None:
        if attempt.token in self._stolen:
            self._stolen.discard(attempt.token)
            stats = self.loop.p.stats
            stats.steal += 1
            stats.children_in += attempt.child

    def _set_aside(self, g: Any) -> None:
        """A G waits while others begin: as a lease, it must not use up the credit of those."""
        if isinstance(g, Attempt) and not g.waits:
            g.waits = True
            self._aside.append(g)

    def revoked(self, attempt: Attempt) -> None:
        """An attempt is dropped whose lease was revoked. Tells the coordinator that we are not
        deaf."""
        del self.attempts[attempt.token]
        self._stolen.discard(attempt.token)
        self._was_revoked = True
        if self._draining:
            self._farewell.look()

    def ended(self, attempt: Attempt) -> None:
        """An attempt has its outcome; this M holds P."""
        self.paused()
        if self.attempts.pop(attempt.token, None) is None:
            self.overrunning.pop(attempt.token, None)
        self.unreported.pop(attempt.token, None)
        unsent = bool(self.reports) and self.reports.ended(attempt)
        if self.withheld.is_needed and (nbytes := self.withheld.keep(attempt)):
            self._send(protocol.Withheld([attempt.token], [nbytes]))
            return
        self._settle(attempt, store=not unsent)
        if attempt.want is not None:
            self.check_fitness(attempt.want)
            attempt.want = None
        gathered, age_ns = len(self.outcomes), attempt.ended_ns - self.flushed_ns
        if (
            gathered >= (min(GATHER_MAX, self.fresh) if attempt.child else GATHER_MAX)
            or self.outcomes.nbytes > protocol.GATHER_BYTES
            or not self.fresh
            or self.outcomes.told
            or is_due(age_ns, self.fresh, self.slow_ns, attempt.fn.quick_ns or 0, attempt.child)
        ):
            self.flush()
        if self._draining:
            self._farewell.look()

    def paused(self) -> None:
        """P is between two attempts. Another M's attempt, which lost P, runs then: should the
        process die now, it is not for want of a name."""
        if self.loop.p.forked:
            leave_fork(0)
        self.shm.pause()
        if detached := self.loop.p.detached[:]:
            attempts = [(m.g, m.trait) for m in detached if isinstance(m.g, Attempt)]
            hogs = [attempt for attempt, trait in attempts if trait in COMPUTING]
            alone = hogs or [attempt for attempt, _ in attempts]
            if len(alone) == 1:
                self.shm.resume(alone[0].token, alone[0].began_ns)

    def _settle(self, attempt: Attempt, *, store: bool) -> None:
        attempt.fn.learn(attempt.occupied_ns)
        report: protocol.Report | None = None
        if attempt.outcome is not Outcome.OK:
            report = {"unopened": True} if attempt.unopened else attempt.report
        elif attempt.pinned_chans:
            assert attempt.options is not None
            p, epoch = attempt.options["child"]
            report = {"gift": self.router.pin((p, epoch), list(attempt.pinned_chans))}
        ran_us, occupied_us = self.outcomes.add(attempt, report)
        if store and attempt.may_be_kept:
            token, outcome, data = attempt.token, attempt.outcome, attempt.data
            kept = self.shm.store(token, outcome, data, ran_us, occupied_us, attempt.out_buffers)
            # Beside others that have gathered it would be a message more.
            alone = kept and len(self.outcomes) == 1 and report is None
            if alone and self.answers.tell(attempt, ran_us):
                self.outcomes.was_told()
        attempt.data, attempt.out_buffers = b"", ()

    def overruns(self, attempt: Attempt) -> None:
        """A limit has passed and the frame has not ended: its client need not wait for that. Nor
        does draining; the coordinator waits for it before another attempt."""
        if self.attempts.pop(attempt.token, None) is None:
            return
        self.overrunning[attempt.token] = attempt
        self.flush()  # that it began
        self._send(protocol.Expired([attempt.token]))
        if self._draining:
            self._farewell.look()

    def yielded(self, attempt: Attempt, blobs: list[Blob]) -> None:
        """Items of a generator job."""
        for message, frames in items(attempt.token, blobs):
            self._send(message, frames)

    def check_size(self, blob: Blob) -> None:
        """Raise Unserializable for a result over the limit: an error of that job alone."""
        if blob.nbytes > self.value_bytes:
            raise Unserializable(too_large(blob.nbytes, self.value_bytes))

    def _on_poll(self, now_ns: int) -> None:
        """P polls its sockets, or (``now_ns`` is 0) is about to sleep: report what is pending.

        Every millisecond while it is busy, by whichever M holds it: so what began and did not end
        is told soon, and outcomes leave though no lease behind them takes them along. Not by a
        callback of the loop: one that is ready ends each batch of Gs after the first.
        """
        if (self.loop.p.gs or self.migration.told) and not self.isolated:
            self.migration.look(now_ns)  # children of an isolated job stay with it
        late = not now_ns or now_ns - self.flushed_ns > GATHER_NS_MAX
        if self.unreported or self._was_revoked or self._aside or (self.outcomes and late):
            self.flush()
        if not now_ns or now_ns - self._published_ns > PUBLISH_NS:
            self._published_ns = now_ns or time.monotonic_ns()
            self.shm.publish(counters(self.loop.p), self._published_ns)

    # -- the wire out ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send the gathered outcomes."""
        self.flushed_ns = time.monotonic_ns()
        if self.unreported or self._was_revoked:
            self._was_revoked = False
            running = [t for t, attempt in self.unreported.items() if attempt.began_ns]
            self.unreported.clear()
            self._send(protocol.Started(running))
        if self._aside:
            aside, self._aside = self._aside, []
            self._send(protocol.Aside([attempt.token for attempt in aside if not attempt.began_ns]))
        if self.reports:
            self.reports.flush()
        if self.outcomes:
            outcomes, self.outcomes = self.outcomes, OutcomeBatch()
            self._beats.moved += outcomes.nbytes
            self._sent += len(outcomes)
            self.withheld.sent(self._sent, outcomes.nbytes)
            self.shm.sent(self._sent)
            outcomes.record(self._ring)
            self._send(*outcomes.message())
        self._beats.soon()

    def _post(self, to: Address, message: ChanMessage) -> None:
        """A message to another worker, about a channel."""
        op, chan, req, length, blob = message
        # Copied: a value's buffers are the memory of its sender.
        frames = [bytes(buffer) for buffer in blob.buffers]
        self._send(protocol.Route(*to, op, chan, req, length, blob.data), frames)

    def _send(self, message: protocol.Message, frames: Any = ()) -> None:
        if self.loop.p.forked:  # the socket is the worker's
            leave_fork(1)
        data = protocol.pack(message)
        self.shm.sends()
        if self.link.send([data, *frames]) and self.link.readable:  # it has consumed the edge
            self.loop.p_callbacks.soon(self.on_readable)

    # -- the wire in -------------------------------------------------------------------------------

    def on_readable(self, recv: Callable[[], list[Any] | None] | None = None) -> None:
        """Take every message that waits, or all that ``recv`` gives."""
        for frames in iter(recv or self.link.recv, None):
            try:
                self._handle(protocol.unpack(frames[0], protocol.TO_WORKER), frames[1:])
                self.shm.took()
            except BaseException as error:  # noqa: BLE001 - whatever user code made of it, too
                self._cannot_go_on(error)

    def _cannot_go_on(self, error: BaseException) -> None:
        """A message of the coordinator was not handled, or half: jobs that it was about might be
        waited for in vain. The worker reports what has ended; the coordinator starts another."""
        print(f"gmpd worker P{self.p}: a message of the coordinator was not handled, so it ends:",  # noqa: T201
              file=sys.stderr)  # fmt: skip
        traceback.print_exception(error)
        try:
            self.flush()
            self.link.close(LINGER_MS)
            self.network.close_gently(LINGER_MS)
        finally:
            sys.stderr.flush()
            os._exit(EXIT_CUT)

    def _handle(self, message: protocol.ToWorker, frames: list[Any]) -> None:  # noqa: C901, PLR0915 - a case per message
        match message:
            case protocol.Assign():
                self._assign(message, frames)
            case protocol.Define():
                self.functions.define(message)
            case protocol.Undefine(fids):
                if self.functions.undefine(fids):
                    # A program has ended: the memory that it held goes back to the system.
                    self._beats.moved += TRIM_BYTES + 1
                    self._beats.soon()
            case protocol.Cancel(tokens):
                self._report(self.withheld.end(tokens))
                self._cancel(tokens)
            case protocol.Withhold(tokens, True):
                self.withheld.begin(self.attempts.keys() & set(tokens))
            case protocol.Withhold(tokens):
                self._report(self.withheld.end(tokens))
            case protocol.Lend(client):
                self.answers.lend(client, frames[0] if frames else None)
            case protocol.Unlend(client):
                self.answers.give_back(client)
            case protocol.Ask():
                self._send(answer(message, self.loop.p, self.p, self.attempts))
            case protocol.StealChildren(n):
                self.migration.donate(n)
            case protocol.Route(p, epoch, op, chan, req, length, payload):
                blob = Blob(payload, tuple(frames))
                self.router.received((p, epoch), ChanMessage(op, chan, req, length, blob))
            case protocol.Lost(p, epoch):
                self.router.lost((p, epoch))
            case protocol.Done():
                self.migration.ended(message, frames)
            case protocol.Progress():
                self.migration.progressed(message)
            case protocol.Output():
                self.migration.printed(message)
            case protocol.Pull(token, n):
                if token in self.attempts:
                    self.attempts[token].pull(n)
            case protocol.Stop(drain):
                self._stop(drain)
            case protocol.Welcome(info=info):
                if (fd := self.link.open_lane(info.lane)) is not None:
                    self.link.borrow()
                    self.loop.p_callbacks.reader(fd, partial(self.on_readable, self.link.recv_lane))
            case protocol.Refused(reason=reason):
                refusal = SystemExit(f"the coordinator refused this worker: {reason}")
                self.loop.interrupt(refusal)
            case _:
                assert_never(message)

    def _assign(self, message: protocol.Assign, frames: list[Any]) -> None:
        fn = self.functions[message.fid]
        payloads, options = message.payloads, message.options
        token, leased = message.first_token, Leased(message)
        self._stolen.update(range(token, token + message.stolen))
        if self._ring is not None:
            recording.leased(self._ring, message, fn)
        nbytes = sum(map(len, payloads))
        self._beats.moved += nbytes + sum(map(len, frames))
        plain = self._new_attempt is Attempt and not self._fitness.calls_left
        if plain and nbytes < RUN_BYTES and may_run_as_one(message, fn):
            self.fresh += len(payloads)
            LeaseRun(self, fn, leased, token, payloads).queue()
            return
        for payload, buffers in zip(
            payloads,
            protocol.split_buffers(message.buffer_counts, len(payloads), frames),
            strict=True,
        ):
            attempt = self._new_attempt(self, token, fn, options, payload, buffers)
            attempt.leased = leased
            self.fresh += 1
            self.slow_ns += attempt.slow_ns
            self.attempts[token] = attempt
            self.loop.fresh.put(attempt)
            token += 1

    def _report(self, attempts: list[Attempt]) -> None:
        """Outcomes that were withheld until now."""
        for attempt in attempts:
            self._settle(attempt, store=not self.shm.release(attempt.token))
            if self.outcomes.nbytes > protocol.GATHER_BYTES:
                self.flush()
        if attempts:
            self.flush()

    def _cancel(self, tokens: list[int]) -> None:
        kept: list[int] = []
        for token in tokens:
            attempt = self.attempts.get(token)
            if attempt is None:
                continue  # its outcome is on the way
            if not attempt.cancel():  # it is claimed: what was not, the coordinator has revoked
                kept.append(token)
        if kept:
            self._send(protocol.Kept(kept))
        self.flush()

    def _stop(self, drain: bool) -> None:
        if not drain:
            self.stop()
            return
        self._report(self.withheld.end_all())
        self._draining = True  # what is fresh was revoked, and is dropped when it comes up
        self._farewell.look()

    def _on_monitor(self) -> None:
        """The connection was cut (by a frame over the limit, for example): its messages may be
        lost, and the coordinator accepts no second one. It starts another worker."""
        if self.link.take_disconnect():
            print(f"gmpd worker P{self.p}: the link to the coordinator was cut", file=sys.stderr)  # noqa: T201
            os._exit(EXIT_CUT)

    def stop(self) -> None:
        """Say goodbye and end the loop; whatever threads still run end with the process."""
        self.flush()
        if self._draining and (tail := recording.tail(self.loop.p, self.value_bytes)):
            self._send(tail)
        self._send(protocol.Bye("stopped"))
        self.loop.end()

    # -- life --------------------------------------------------------------------------------------

    def prepare(self, settings: dict[str, Any]) -> bool:
        """Imports and initializer; False after telling the coordinator what failed."""
        stage, name = protocol.Stage.IMPORT, ""
        try:
            for name in settings["imports"]:
                importlib.import_module(name)
            if (settings["imports"] or settings["scheduled"]) and not self.isolated:
                self._found["declared"] = declared_in(settings["imports"])
                self._found["missing"] = missing_among(settings["scheduled"])
            if settings["initializer"] is not None:
                stage = protocol.Stage.INITIALIZER
                self.base.run(partial(run_initializer, *settings["initializer"]))
        except BaseException as exc:  # noqa: BLE001 - user code: anything may come out of it
            self.link.send([protocol.pack(self._hello(settings, serves=False))])
            self.link.send([protocol.pack(protocol.Fault(stage, name, encode_error(exc)))])
            await_stop(self.link, FAULT_S)
            return False
        return True

    def _hello(self, settings: dict[str, Any], *, serves: bool = True) -> protocol.Hello:
        info = {
            **versions.own(),
            "p": self.p,
            "epoch": settings["epoch"],
            "pid": os.getpid(),
            "secret": settings["secret"],
            "serves": serves,
            "lane": self.link.offer_lane() if serves else b"",
            **self._found,
        }
        return protocol.hello("worker", b"", info)

    def run(self, settings: dict[str, Any]) -> None:
        """Serve until told to stop."""
        self.loop.manage_gc()
        self.loop.p_callbacks.reader(self.link.fd, self.on_readable)
        self.loop.p_callbacks.reader(self.link.monitor_fd, self._on_monitor)
        self._on_monitor()  # a descriptor of ZeroMQ tells of news only once it has been asked
        self._send(self._hello(settings))
        for look in self._looks:
            look()
        self.loop.run_forever()


def _claim_nothing(_token: int, _now_ns: int) -> bool:
    return False


def main(argv: list[str]) -> int:
    """``python -m gmpd.daemon.worker PAGE_FD``: settings come as msgpack on standard input."""
    inherited.settle()
    if not (data := sys.stdin.buffer.read()):
        return 0  # it was started early, and is not needed
    settings = msgpack.unpackb(data, use_list=False, unicode_errors="surrogateescape")
    process.settle_process(settings)
    output.install(settings["log_form"])
    log_records.install("isolated" if settings["isolated"] else str(settings["p"]))
    shm = WorkerShm(int(argv[1]))
    os.close(int(argv[1]))
    shm.slots[Slot.EPOCH] = settings["epoch"]
    shm.slots[Slot.PID] = os.getpid()
    network = Network()
    worker = Worker(settings, shm, network)
    leave_words(worker.threads.note_dying)
    leave_stacks(shm)
    try:
        if not worker.prepare(settings):
            return EXIT_FAULT
        worker.run(settings)
    except ProtocolError as error:
        print(f"gmpd worker P{worker.p}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAULT
    finally:
        worker.link.close(LINGER_MS)
        network.close_gently(LINGER_MS)
    return 0


if __name__ == "__main__":
    # By its name, so that what is defined here is not `__main__`'s, which is the program's.
    from gmpd.daemon import worker

    stand_in()
    process.leave(worker.main(sys.argv))
