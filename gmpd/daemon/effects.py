"""Executes the policy's instructions (``sched.instructions``), in order.

It decides nothing. The policy has the answer to an instruction that is answered (Probe,
RecoverOutcomes, Revoke) when ``execute`` returns.
"""

from __future__ import annotations

import logging
import time
from typing import Any, assert_never, cast

from gmpd import protocol
from gmpd.config import Config
from gmpd.daemon.clients import Clients
from gmpd.daemon.durable import LINK, DurableJobs
from gmpd.daemon.leased import volatile_ids
from gmpd.daemon.outbox_overflow import as_finished
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.shm import Slot
from gmpd.daemon.snapshot import DEAF_SHOWN_NS
from gmpd.daemon.supervisor import WorkerProcess
from gmpd.daemon.workers import Workers
from gmpd.runtime.ring import Kind, Ring
from gmpd.sched import events
from gmpd.sched import instructions as do
from gmpd.sched.isolated import ISOLATED_FROM
from gmpd.sched.leavers import p_of
from gmpd.sched.records import PRecord
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")


class Effects:
    """Executes instructions on sockets, processes and shared memory."""

    def __init__(
        self,
        config: Config,
        sched: Sched,
        pool: WorkerPool,
        workers: Workers,
        clients: Clients,
        durable: DurableJobs,
    ) -> None:
        #: Gets leases and steals.
        self.ring: Ring | None = None
        #: Since when Ps without work search; 0: none does. The coordinator's loop clears it.
        self.searching_ns = 0
        self.configure(config)
        self._sched = sched
        self._pool = pool
        self._supervisor = pool.supervisor
        self._workers = workers
        self._clients = clients
        self._durable = durable

    def configure(self, config: Config) -> None:
        """Use these settings from now on."""
        self._frozen_ns = int(config.restart.frozen * 1e9)

    def execute(self, what: do.Instruction) -> None:  # noqa: C901, PLR0915 - a case per instruction
        """Execute one instruction."""
        workers, clients = self._workers, self._clients
        match what:
            case do.SendOutcomes():
                self._send_outcomes(what)
            case do.LeaseJobs():
                self._lease_jobs(what)
            case do.DefineAt(p, fn):
                needs = [part.fid for part in fn.needs]
                workers.tell(p, protocol.Define(fn.fid, fn.kind, fn.name, fn.payload, needs))
            case do.UndefineAt(p, fids):
                workers.tell(p, protocol.Undefine(fids))
            case do.AskChildren(p, n):
                workers.tell(p, protocol.StealChildren(n))
                self.searching_ns = self.searching_ns or time.monotonic_ns()
            case do.Probe(p):
                self._probe(p)
            case do.RecoverOutcomes(p):
                self._recover(p)
            case do.Revoke():
                self._revoke(what)
            case do.Withhold(p, tokens, on):
                workers.tell(p, protocol.Withhold(tokens, on))
            case do.CancelAt(p, tokens):
                workers.tell(p, protocol.Cancel(tokens))
            case do.PullAt(p, token, n):
                workers.tell(p, protocol.Pull(token, n))
            case do.Retire(p):
                workers.tell(p, protocol.Stop(True))
            case do.StartIsolated(number):
                self._pool.start_isolated(number)
            case do.Kill(p, why):
                if (worker := self._worker_of(p)) is not None:
                    worker.replaced = why
                    self._supervisor.kill(worker)
            case do.SendItems(session, seq, payloads, buffers):
                counts, frames = protocol.join_buffers(buffers)
                clients.send(session.link, protocol.Items(seq, payloads, counts), frames)
            case do.NotifyRunning(session, seqs) if session.link is LINK:
                self._durable.running(seqs)
            case do.NotifyNotCancelled(session, _) if session.link is LINK:
                pass  # its end is awaited
            case do.NotifyRunning(session, seqs):
                clients.send(session.link, protocol.Running(seqs))
            case do.PassOutput(session, message):
                assert session.parent is not None
                workers.tell(session.parent, message)
            case do.NotifyProgress(session, message) if session.parent is not None:
                workers.tell(session.parent, message)
            case do.NotifyProgress(session, message):
                clients.send(session.link, message)
            case do.NotifyNotCancelled(session, seqs):
                clients.send(session.link, protocol.Kept(seqs))
            case do.GrantRoom(session, jobs):
                clients.send(session.link, protocol.Room(jobs))
            case _:
                assert_never(what)

    # -- jobs and outcomes -------------------------------------------------------------------------

    def _send_outcomes(self, what: do.SendOutcomes) -> None:
        session, out = what
        if out.specials:
            self._add_pids(out.specials)
        if session.link is LINK:
            self._durable.ended(out)
            return
        counts, frames = protocol.join_buffers(out.buffers)
        specials = cast("protocol.Specials | None", out.specials or None)
        done = protocol.Done(out.seqs, out.payloads, out.ran_us, specials, counts)
        if session.parent is None:
            self._clients.send(session.link, done, frames)
        else:
            self._workers.tell(session.parent, done, frames)

    def _add_pids(self, specials: dict[int, tuple[protocol.Outcome, dict[str, Any]]]) -> None:
        for _, details in specials.values():
            if "p" not in details:
                continue
            number = details["p"]
            if (worker := self._supervisor.processes.get(number)) is not None:
                details.setdefault("pid", worker.process.pid)
            if number >= ISOLATED_FROM:  # a number that says nothing to a client
                del details["p"]
                details["isolated"] = True
            else:
                details["p"] = p_of(number)

    def _lease_jobs(self, what: do.LeaseJobs) -> None:
        p, fn, options, first, payloads, buffers, stolen, session, seqs, attempts, answers = what
        worker = self._worker_of(p)
        # From now on the worker may claim these, and they may be revoked.
        displaced = worker.shm.claims.offer(first, len(payloads)) if worker is not None else []
        counts, frames = protocol.join_buffers(buffers)
        ids: bytes | None
        if session.link is LINK:
            ids, attempts = self._durable.identities(seqs)
        else:
            ids = volatile_ids(session.key, seqs)
        client = None
        if answers and worker is not None and ids is not None and seqs[-1] < 1 << 32:
            lane = self._clients.lane_of(session)
            if self._workers.lend(worker, session.sid, lane):
                client = session.sid
                worker.shm.claims.may_answer(first, len(payloads))
        assign = protocol.Assign(
            fn.fid, first, options, payloads, counts, stolen, ids, attempts, client
        )
        self._workers.tell(p, assign, frames)
        if self.ring is not None and 0 <= p.p < ISOLATED_FROM:
            number = Kind.LEASED | (len(payloads) | stolen << 24) << 8
            self.ring.add((number, time.monotonic_ns(), p.p, first))
        if displaced:
            now = time.monotonic_ns()
            self._sched.handle(events.Revoked(p.p, displaced, displaced, None, now), now)

    # -- in the memory that a worker shares --------------------------------------------------------

    def _worker_of(self, p: PRecord) -> WorkerProcess | None:
        return self._supervisor.worker_of(p.p, p.epoch)

    def _revoke(self, what: do.Revoke) -> None:
        worker = self._worker_of(what.p)
        got = worker.shm.claims.revoke(what.tokens) if worker is not None else []
        thief = None if what.thief is None else what.thief.p
        revoked = events.Revoked(what.p.p, what.tokens, got, thief, what.asked_ns)
        now = time.monotonic_ns()
        if self.ring is not None and thief is not None and got:
            number = Kind.REVOKED | (p_of(what.p.p) | (thief + 1) << 24) << 8
            self.ring.add((number, what.asked_ns, now, len(got)))
        self._sched.handle(revoked, now)

    def _recover(self, p: PRecord) -> None:
        """Outcomes that a worker stored and then could not send."""
        worker = self._worker_of(p)
        held = p.fresh.keys() | p.started.keys() | p.overrunning.keys()
        stored = worker.shm.recover_from_living(held) if worker is not None else []
        if stored:
            buffers = [each.buffers for each in stored]
            recovered = events.OutcomesRecovered(p.p, as_finished(stored), buffers)
            self._sched.handle(recovered, time.monotonic_ns())

    def _probe(self, p: PRecord) -> None:
        """Whether a worker's run loop moves: by its shared memory, without a message."""
        now = time.monotonic_ns()
        worker = self._worker_of(p)
        moves, asleep = False, False
        if worker is not None:
            moves, asleep = worker.watch.look(now)
            if not (moves or asleep or worker.called_deaf) and p.is_deaf_for(DEAF_SHOWN_NS, now):
                worker.called_deaf = True
                log.warning("%s is deaf: %s", worker, _what_runs(p, worker, now))
        self._sched.handle(events.Probed(p.p, moves, asleep), now)
        if worker is not None and p.deaf and p.fresh:
            # It cannot report the jobs that it began; but time limits count from now on.
            is_claimed = worker.shm.claims.is_claimed
            claimed = [token for token in p.fresh if is_claimed(token)]
            self._sched.handle(events.Claimed(p.p, claimed), now)
        if worker is not None:
            self._replace_frozen(p, worker, now)

    def _replace_frozen(self, p: PRecord, worker: WorkerProcess, now: int) -> None:
        looks = worker.shm.slots[Slot.LOOKS]
        if not p.deaf or looks != worker.seen_looks:  # a coroutine that blocks keeps P, not the GIL
            worker.seen_looks = looks
            worker.stillness.moved()
        elif worker.stillness.look(worker.process.pid, now) > self._frozen_ns > 0:
            log.error(
                "%s is ended: it stood still for restart.frozen = %g s and did not compute, so C"
                " code holds the GIL and waits: %s",
                worker, self._frozen_ns / 1e9, _what_runs(p, worker, now),
            )  # fmt: skip
            self._supervisor.kill(worker)


def _what_runs(p: PRecord, worker: WorkerProcess, now: int) -> str:
    job = p.job(worker.shm.slots[Slot.CURRENT])
    if job is None:
        return "its loop makes no rounds, and no job is on its P"
    for_s = (now - worker.shm.slots[Slot.CURRENT_NS]) / 1e9
    return f"{job.fn.name} of {job.session.name!r} has held P for {for_s:.2g} s"
