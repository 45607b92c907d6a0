"""A seeded world around the ledger: workers and clients that do all they may, in any order.

Workers take up their leases late, stop in the middle of anything and go on; what was not claimed
by then may have been revoked. Whatever happens, every accepted job ends exactly once, nothing
without retries runs twice, and the invariants hold after each step. A failure prints its seed; the
same seed repeats it exactly. The history of a world, told to another policy, leads to the same
decisions.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from gmpd.errors import ProtocolError
from gmpd.protocol import Finished, Outcome, Report
from gmpd.sched.instructions import (
    AskChildren,
    CancelAt,
    DefineAt,
    Instruction,
    LeaseJobs,
    NotifyRunning,
    Probe,
    RecoverOutcomes,
    Retire,
    Revoke,
    SendOutcomes,
    UndefineAt,
    Withhold,
)
from gmpd.sched.limits import Limits
from gmpd.sched.records import Overrun, PRecord, Session
from tests.desk import MS, Desk, replay

SEEDS = 200
STEPS = 120
#: When nothing but the rest is left to do, one in so many decisions is audited.
CALM_AUDITS = 4
#: Every so many worlds, its history is replayed: half as long again as to live it.
REPLAYED = 10
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"priority": 3},
    {"priority": -1},
    {"delay": 0.004},
    {"retries": 1},
    {"retries": 4, "priority": 3},
    {"timeout": 0.05},
    {"timeout": 0.2, "retries": 3},
)
FUNCTIONS = (("m:quick", "name"), ("m:slow", "name"), ("m:<lambda>", "pickle"))
OCCUPIED_MS = {"m:quick": 0.01, "m:slow": 3.0, "m:<lambda>": 0.4}


class Worker:
    """One worker process, which knows only what it was told."""

    def __init__(self, record: PRecord) -> None:
        self.record = record
        self.epoch = record.epoch
        self.taught: set[int] = set()
        #: Its run queue, with what was revoked meanwhile.
        self.fresh: dict[int, bytes] = {}
        #: Begun, and whether the coordinator was told.
        self.begun: dict[int, bool] = {}
        #: Frames that have not ended, and whose they are.
        self.frames: dict[int, tuple[int, int]] = {}
        #: Children at home, and how many of them it was asked for.
        self.children = 0
        self.asked_children = 0
        self.cancels: list[int] = []
        #: What it is to keep, and keeps.
        self.to_withhold: set[int] = set()
        self.withheld: set[int] = set()
        self.retired = False
        #: Rounds that it does nothing at all: stopped, or deaf in C code.
        self.stopped = 0
        #: The claims in shared memory: what may still be claimed or revoked.
        self.offered: set[int] = set()
        #: Ended, in its page, and not sent yet; and those that the coordinator took from there.
        self.unsent: dict[int, Outcome] = {}
        self.collected: set[int] = set()
        #: Leases whose clients it may tell their values: the right to answer is there. And those
        #: that it has told, without the coordinator's knowledge.
        self.may_tell: set[int] = set()
        self.told: set[int] = set()


class World:
    """The desk's shell, with workers that act by themselves."""

    def __init__(self, seed: int, **policy: int) -> None:
        self.dice = random.Random(seed)
        self.desk = Desk(
            recorded=not seed % REPLAYED,
            seed=seed,
            window=300,
            queue_jobs=500,
            outbox_bytes=150,
            results_bytes=200,
            strikes=2,
            answered_max=300,
            **policy,
        )
        self.sched = self.desk.sched
        self.options = OPTIONS
        self.workers: dict[int, Worker] = {}
        self.epochs = Counter[int]()
        self.clients: list[Session] = []
        self.submitted: dict[int, dict[int, int]] = {}
        self.gone: set[int] = set()
        #: (session, seq) -> times that it was begun.
        self.runs = Counter[tuple[int, int]]()
        #: Jobs of which an attempt's frame has not ended.
        self.frames: set[tuple[int, int]] = set()
        #: Jobs that ended well, by the page of their worker.
        self.stored: set[tuple[int, int]] = set()
        #: Their clients have the value from the worker.
        self.told: set[tuple[int, int]] = set()
        self.expired = 0
        self.told_running: set[tuple[int, int]] = set()
        self.children_given = 0
        self.held_back = 0
        self.n_withheld = 0
        self.revoked = self.collected = self.aside = 0
        #: Leases that a worker found revoked when it came to them.
        self.dropped = 0
        #: Workers that left their P, and those that had begun something then.
        self.left = self.left_with_work = 0
        #: No more trouble: jobs are quick, so that many end in a round.
        self.calm = False

    # -- what may happen

    def live(self, steps: int) -> None:
        """So many things happen; then all comes to rest, and must be as it ought to be."""
        try:
            self.join()
            self.spawn()
            for _ in range(steps):
                self.step()
            self.settle()
            self.check()
        except BaseException as error:
            if not hasattr(error, "__notes__"):  # else the policy's own, with the story
                error.add_note(self.sched.story())
            raise

    def acts(self) -> list[tuple[Callable[[], None], float]]:
        """All that may happen, and how often it does."""
        return [
            (self.spawn, 3),
            (self.join, 1),
            (self.submit, 8),
            (self.begin, 10),
            (self.set_aside, 4),
            (self.finish, 12),
            (self.expire, 3),
            (self.have_children, 1),
            (self.give_children, 5),
            (self.cancel_children, 0.5),
            (self.stop, 2),
            (self.end_retired, 3),
            (self.cancel, 2),
            (self.answer_cancel, 3),
            (self.ack, 4),
            (self.die, 1),
            (self.leave, 0.3),
            (self.retire, 0.3),
            (self.give_p_away, 0.6),
            (self.lie, 1),
        ]

    def step(self) -> None:
        acts = self.acts()
        act = self.dice.choices([act for act, _ in acts], [weight for _, weight in acts])[0]
        act()
        self.decide(self.dice.choice((0, 0, 0.1, 3, 200)))
        self.held_back = max(self.held_back, self.sched.held_back)

    # -- what the shell does

    def decide(self, after_ms: float) -> None:
        rounds = 0
        again = True
        while again:
            instructions = self.desk.take(after_ms if not rounds else 0)
            for instruction in instructions:
                self.obey(instruction)
            again = any(isinstance(each, Revoke | Probe) for each in instructions)
            rounds += 1
            assert rounds < 200, "the policy and its revocations never come to rest"
        for worker in self.workers.values():
            held = worker.record
            idle = not held.fresh and held.ready and not held.draining
            assert idle == self.sched.is_idle(held), "an idle P is not known to be idle"
            ended = (worker.unsent.keys() - worker.collected) | worker.withheld
            assert worker.offered | worker.begun.keys() | ended == (
                held.fresh.keys()
                | held.started.keys()
                | held.overrunning.keys()
                | held.withheld.keys()
            )
            assert worker.offered <= worker.fresh.keys()

    def obey(self, instruction: Instruction) -> None:
        if (
            isinstance(instruction, UndefineAt | CancelAt | Retire)
            and instruction.p.p not in self.workers
        ):
            return  # decided before its worker died, in the same batch of events
        match instruction:
            case DefineAt(p, fn):
                assert fn.fid not in self.workers[p.p].taught, "taught twice"
                self.workers[p.p].taught.add(fn.fid)
            case UndefineAt(p, fids):
                self.workers[p.p].taught -= set(fids)
            case LeaseJobs(p, fn, _, first, payloads, _):
                worker = self.workers[p.p]
                assert fn.fid in worker.taught, "leased before it was defined"
                assert not worker.retired, "work for a P that leaves"
                assert not worker.record.fresh[first].session.full, "for who takes no results"
                worker.fresh |= {first + i: payload for i, payload in enumerate(payloads)}
                worker.offered |= set(range(first, first + len(payloads)))
                if instruction.answers:
                    worker.may_tell |= set(range(first, first + len(payloads)))
            case Probe(p):
                watched = self.workers.get(p.p)
                moves = watched is not None and not watched.stopped
                asleep = moves and self.dice.random() < 0.3
                self.desk.probed(p, moves=moves and not asleep, asleep=asleep)
            case RecoverOutcomes(p):
                if p.p in self.workers:
                    self.take_rights(self.workers[p.p])
                    self.collect(self.workers[p.p])
            case Revoke(p, tokens, thief):
                assert tokens, "a revocation of nothing"
                assert thief is None or (thief is not p and not thief.deaf and not thief.fresh)
                victim = self.workers.get(p.p)
                got = [token for token in tokens if victim and token in victim.offered]
                if victim:
                    victim.offered -= set(got)
                self.revoked += len(got)
                self.desk.revoked(instruction, got)
            case AskChildren(p, n):
                assert p.children, "asked for children that it did not tell of"
                assert not self.workers[p.p].asked_children, "asked twice"
                self.workers[p.p].asked_children = n
            case Withhold(p, tokens, on):
                if p.p in self.workers:
                    self.withhold(self.workers[p.p], tokens, on)
            case CancelAt(p, tokens):
                self.workers[p.p].cancels += tokens
            case Retire(p):
                self.workers[p.p].retired = True
            case NotifyRunning(session, seqs):
                self.told_running |= {(session.sid, seq) for seq in seqs}
            case SendOutcomes(session, _):
                assert session.sid not in self.gone, "an outcome for a client that left"
            case _:
                pass

    # -- workers

    def any_worker(self) -> Worker | None:
        return self.dice.choice(list(self.workers.values())) if self.workers else None

    def some(self, tokens: list[int]) -> list[int]:
        return self.dice.sample(tokens, self.dice.randint(0, len(tokens)))

    def spawn(self) -> None:
        p = self.dice.randrange(4)
        if p not in self.workers:
            self.epochs[p] += 1
            self.workers[p] = Worker(self.desk.ready(p, self.epochs[p]))

    # -- children of their Gs

    def have_children(self) -> None:
        """A G makes some; or the P has run its last."""
        if (worker := self.any_worker()) is None:
            return
        worker.children = 0 if worker.children else self.dice.randint(1, 40)
        self.desk.children(worker.record, worker.children)

    def give_children(self) -> None:
        asked = [worker for worker in self.workers.values() if worker.asked_children]
        if not asked:
            return
        worker = self.dice.choice(asked)
        n = self.dice.randint(0, min(worker.asked_children, worker.children))
        worker.asked_children = 0
        worker.children -= n
        if n:
            parent = self.desk.parent(worker.record)
            fn, kind = self.dice.choice(FUNCTIONS)
            seqs = self.desk.submit(parent, n, fn, kind=kind)
            self.submitted.setdefault(parent.sid, {}).update(dict.fromkeys(seqs, 1))
            self.children_given += n
        left = worker.children if n else 0
        self.desk.children(worker.record, left, asked=True)

    def cancel_children(self) -> None:
        if (worker := self.any_worker()) is None or worker.record.session is None:
            return
        session = worker.record.session
        self.desk.cancel(session, self.some(list(self.submitted[session.sid]))[:10])

    def awake(self) -> Worker | None:
        """Some worker; None when it is stopped, or there is none."""
        worker = self.any_worker()
        if worker is None or not worker.stopped:
            return worker
        worker.stopped -= 1
        return None

    def stop(self) -> None:
        if (worker := self.any_worker()) is not None:
            worker.stopped = self.dice.choice((1, 3, 30))

    def take_rights(self, worker: Worker) -> None:
        """As the shell, before it reads what is stored."""
        worker.may_tell.clear()

    def collect(self, worker: Worker) -> None:
        tokens = [token for token in worker.unsent if token not in worker.collected]
        if tokens:
            worker.collected |= set(tokens)
            self.collected += len(tokens)
            specials: dict[int, tuple[Outcome, Report | None]] = {
                i: (worker.unsent[token], None)
                for i, token in enumerate(tokens)
                if worker.unsent[token] is not Outcome.OK
            }
            columns = [b"r"] * len(tokens), [10] * len(tokens), [10] * len(tokens)
            message = Finished(tokens, *columns, specials or None, None)
            self.desk.recovered(worker.record, message)

    def flush(self, worker: Worker) -> None:
        """It sends what it had gathered; of what was collected that is no news."""
        for token, outcome in worker.unsent.items():
            if token in worker.collected:
                self.desk.finish(worker.record, [token], outcome)
            else:
                self._end(worker, token, outcome)
        worker.unsent.clear()
        worker.collected.clear()

    def says(self, worker: Worker) -> None:
        """As the shell: any message shows that its loop lives."""
        self.desk.heard(worker.record)

    def begin(self) -> None:
        if (worker := self.awake()) is None:
            return
        for token in self.some(list(worker.fresh)):
            self._begin(worker, token)
        told = self.some([token for token, known in worker.begun.items() if not known])
        worker.begun |= dict.fromkeys(told, True)
        self.says(worker)
        self.desk.start(worker.record, told)

    def set_aside(self) -> None:
        """Some wait while others begin; of some that is no news, or too late."""
        if (worker := self.awake()) is not None:
            tokens = self.some([*worker.fresh, *worker.begun, *worker.unsent])
            self.says(worker)
            self.desk.set_aside(worker.record, tokens)
            self.aside += len(worker.record.set_aside())

    def _begin(self, worker: Worker, token: int) -> None:
        payload = worker.fresh.pop(token)
        if token not in worker.offered:
            self.dropped += 1
            return
        worker.offered.remove(token)
        job = worker.record.fresh[token]
        self.runs[job.session.sid, job.seq] += 1
        attempts = 1 + int(job.option("retries", 0)) + job.spared
        assert self.runs[job.session.sid, job.seq] <= attempts, f"runs too often: {job.story()}"
        assert (job.session.sid, job.seq) not in self.frames, f"attempts overlap: {job.story()}"
        self.frames.add((job.session.sid, job.seq))
        worker.frames[token] = job.session.sid, job.seq
        assert payload == b"%d" % job.seq, "another job's arguments"
        worker.begun[token] = False

    def finish(self) -> None:
        if (worker := self.awake()) is not None:
            self._finish(worker)

    def _finish(self, worker: Worker) -> None:
        self.says(worker)
        for token in self.some(list(worker.fresh)):
            self._begin(worker, token)
        self.flush(worker)
        for token in self.some(list(worker.begun)):
            outcome = self.dice.choice(
                (Outcome.OK, Outcome.OK, Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT)
            )
            del worker.begun[token]
            self.frames.discard(worker.frames.pop(token))
            # Told to, or of itself, as much is on its way.
            if self.dice.random() < (0.8 if token in worker.to_withhold else 0.05):
                worker.withheld.add(token)
                self.n_withheld += 1
                self.desk.withheld(worker.record, [token])
                continue
            if outcome is Outcome.OK and token in worker.may_tell and self.dice.random() < 0.8:
                worker.told.add(token)
                if (job := worker.record.job_of(token)) is not None:
                    self.told.add((job.session.sid, job.seq))
            if self.dice.random() < (0.7 if token in worker.told else 0.3):
                worker.unsent[token] = outcome
                job = worker.record.job(token)
                if outcome is Outcome.OK and job is not None:
                    self.stored.add((job.session.sid, job.seq))
            else:
                self._end(worker, token, outcome)

    def expire(self) -> None:
        """Limits pass, and the frames go on."""
        if (worker := self.awake()) is None:
            return
        late = [
            token
            for token in worker.begun
            if (job := worker.record.job(token)) is not None and job.option("timeout", None)
        ]
        self.says(worker)
        self.expired += len(late)
        self.desk.expired(worker.record, self.some(late))

    def _end(self, worker: Worker, token: int, outcome: Outcome) -> None:
        job = worker.record.job(token)
        assert job is not None or token in worker.record.overrunning
        took = 0.01 if job is None or self.calm else OCCUPIED_MS[job.fn.name]
        payload = b"r" * self.dice.choice((0, 1, 50))
        told = token in worker.told
        worker.told.discard(token)
        self.desk.finish(
            worker.record, [token], outcome, occupied_ms=took, payload=payload, told=told
        )

    def end_retired(self) -> None:
        worker = self.awake()
        if worker is not None and worker.retired and not worker.begun and not worker.offered:
            self.flush(worker)
            p = worker.record.p
            del self.workers[p]
            self._orphan(worker)
            self.desk.died(p)
            if p >= 0:
                self.desk.remove_p(p)

    def withhold(self, worker: Worker, tokens: list[int], on: bool) -> None:
        if on:
            worker.to_withhold |= set(tokens) & (worker.begun.keys() | worker.fresh.keys())
            return
        worker.to_withhold -= set(tokens)
        for token in worker.withheld.intersection(tokens):
            worker.withheld.remove(token)
            worker.unsent[token] = Outcome.OK  # it leaves in the worker's own time

    def answer_cancel(self) -> None:
        if (worker := self.awake()) is None:
            return
        self.says(worker)
        worker.to_withhold -= set(worker.cancels)
        for token in worker.withheld.intersection(worker.cancels):
            worker.withheld.remove(token)
            self._end(worker, token, Outcome.OK)
        for token in worker.cancels:
            assert token not in worker.offered, "what was not claimed is revoked, not asked for"
            if token in worker.begun and self.dice.random() < 0.5:
                del worker.begun[token]
                self.frames.discard(worker.frames.pop(token))
                self._end(worker, token, Outcome.CANCELLED)
            else:
                self.desk.not_cancelled(worker.record, [token])
        worker.cancels.clear()

    def die(self) -> None:
        if (worker := self.any_worker()) is None:
            return
        self.recover(worker)
        begun = self.claimed(worker)
        culprit = self.dice.choice(begun) if begun else None
        p = worker.record.p
        del self.workers[p]
        self.frames -= set(worker.frames.values())
        self._orphan(worker)
        self.desk.died(p, set(begun), culprit)
        if worker.retired and p >= 0:
            self.desk.remove_p(p)

    def recover(self, worker: Worker) -> None:
        """Report the outcomes that a dead worker left in its shared memory, and had not sent."""
        self.flush(worker)

    def claimed(self, worker: Worker) -> list[int]:
        """The leases that it had claimed, by its shared memory."""
        return list(worker.begun)

    def _orphan(self, worker: Worker) -> None:
        if worker.record.session is not None:
            self.gone.add(worker.record.session.sid)

    def retire(self) -> None:
        worker = self.any_worker()
        if worker is not None and worker.record.p >= 0:
            self.desk.drain_p(worker.record.p)

    def give_p_away(self) -> None:
        """A worker leaves its P to a successor, which comes later, and ends what it has begun."""
        worker = self.any_worker()
        if worker is None or worker.record.p < 0:
            return
        p = worker.record.p
        self.desk.leave_p(p)
        self.workers[worker.record.p] = self.workers.pop(p)
        self.left += 1
        self.left_with_work += bool(worker.begun)

    def lie(self) -> None:
        """Late messages of a worker that is no more, and of leases that have ended."""
        if (worker := self.any_worker()) is None:
            return
        record, stale = worker.record, worker.epoch - 1
        tokens = list(range(max(0, record.next_token - 5), record.next_token + 3))
        self.desk.start(record, tokens, stale)
        self.desk.expired(record, tokens, stale)
        self.desk.set_aside(record, tokens, stale)
        self.desk.heard(record, stale)
        self.desk.finish(record, tokens, epoch=stale)
        live = record.fresh.keys() | record.started.keys() | record.overrunning.keys()
        live |= record.withheld.keys()
        ended = [token for token in tokens if token not in live]
        self.desk.finish(record, ended)

    # -- clients

    def any_client(self) -> Session | None:
        return self.dice.choice(self.clients) if self.clients else None

    def join(self) -> None:
        if len(self.clients) < 4:
            answers = self.dice.random() < 0.5
            self.clients.append(self.desk.client(f"c{len(self.submitted)}", answers=answers))
            self.submitted[self.clients[-1].sid] = {}

    def submit(self) -> None:
        if (client := self.any_client()) is None:
            return
        fn, kind = self.dice.choice(FUNCTIONS)
        options = self.dice.choice(self.options)
        for seq in self.desk.submit(client, self.dice.randint(1, 30), fn, kind=kind, **options):
            self.submitted[client.sid][seq] = 1 + int(options.get("retries", 0))

    def cancel(self) -> None:
        if (client := self.any_client()) is not None:
            seqs = self.some(list(self.submitted[client.sid]))[:10]
            self.desk.cancel(client, seqs + seqs[:2])

    def ack(self) -> None:
        if (client := self.any_client()) is not None:
            self.desk.ack(client, self.dice.randint(client.acked, client.delivered))
            if self.dice.random() < 0.1:
                with pytest.raises(ProtocolError, match="were sent"):
                    self.desk.ack(client, client.delivered + 1)

    def leave(self) -> None:
        if (client := self.any_client()) is not None:
            self.clients.remove(client)
            self.gone.add(client.sid)
            self.desk.leave(client)

    # -- the end

    def settle(self) -> None:
        """All do what is left to do; no more trouble."""
        self.calm = True
        self.desk.audit_every = CALM_AUDITS
        for _ in range(3000):
            parents = [p.session for p in self.sched.records() if p.session is not None]
            sessions = [*self.clients, *parents]
            if not self.sched.unfinished and not any(each.outcomes.seqs for each in sessions):
                return
            for p in range(4):
                if p not in self.workers:
                    self.epochs[p] += 1
                    self.workers[p] = Worker(self.desk.ready(p, self.epochs[p]))
            for worker in self.workers.values():
                self._finish(worker)
            self.end_retired()
            self.give_children()
            self.answer_cancel()
            for client in self.clients:
                self.desk.ack(client, client.delivered)
            self.decide(50)
        pytest.fail(f"{self.sched.unfinished} jobs never ended")

    def has_run(self, sid: int, seq: int) -> bool:
        return self.runs[sid, seq] >= 1

    def check(self) -> None:
        parents = [p.session for p in self.sched.records() if p.session is not None]
        for client in [*self.clients, *parents]:
            for seq in self.submitted[client.sid]:
                ends = self.desk.outcomes.get((client.sid, seq), [])
                if (client.sid, seq) in self.told:
                    assert [end[0] for end in ends] in ([], [Outcome.OK]), "an end beside the value"
                else:
                    assert len(ends) == 1
        for parent in parents:
            assert (parent.unacked_bytes, parent.owed) == (0, 0)
            self.desk.leave(parent)
        for (sid, seq), got in self.desk.outcomes.items():
            assert len(got) == 1, f"{len(got)} outcomes of {sid}/{seq}"
            if got[0][0] is Outcome.OK:
                assert self.has_run(sid, seq)
            if got[0][0] is Outcome.LOST:
                assert (sid, seq) not in self.stored, "a stored outcome is lost"
            if got[0][0] is Outcome.REJECTED:
                assert not self.runs[sid, seq]
        for client in list(self.clients):
            self.desk.ack(client, client.delivered)
            assert (client.unacked_bytes, client.owed) == (0, 0)
            self.desk.leave(client)
        self.decide(0)
        counters = self.sched.counters
        assert counters.submitted == sum(counters.finished.values())
        assert (self.sched.nbytes, len(self.sched.queue), len(self.sched.delays)) == (0, 0, 0)
        assert all(fn.kind == "name" and not fn.users for fn in self.sched.functions.all())
        assert self.sched.next_deadline() is None
        assert self.told_running <= self.runs.keys()


AnyWorld = TypeVar("AnyWorld", bound=World)


def live_all(
    first: int, live: Callable[[int], AnyWorld], more: Callable[[AnyWorld], dict[str, int]]
) -> Counter[str]:
    """Twenty worlds: jobs by outcome, and ``more``, counted. A failure names its seed."""
    total = Counter[str]()
    for seed in range(first, first + 20):
        try:
            world = live(seed)
        except Exception as exc:
            exc.add_note(f"seed {seed}: live({seed}) repeats it")
            raise
        if not seed % REPLAYED:
            assert replay(world.desk) == world.desk.decisions, f"seed {seed} decides anew"
        total += world.sched.counters.finished
        total.update(more(world))
    return total


def assert_repeats(live: Callable[[int], World], seed: int) -> None:
    one, two = live(seed), live(seed)
    assert one.desk.outcomes == two.desk.outcomes
    assert one.desk.log
    assert [type(each) for each in one.desk.log] == [type(each) for each in two.desk.log]
    assert one.desk.now // MS == two.desk.now // MS


def live(seed: int) -> World:
    world = World(seed)
    world.live(STEPS)
    return world


def moves(world: World) -> dict[str, int]:
    assert world.sched.counters.children <= world.children_given
    return {
        "stolen": world.sched.counters.steal.count,
        "revoked": world.revoked,
        "dropped": world.dropped,
        "collected": world.collected,
        "children": world.children_given,
        "held back": world.held_back,
        "withheld": world.n_withheld,
        "set aside": world.aside,
        "left": world.left,
        "left with work": world.left_with_work,
        "told": len(world.told),
        "overran": world.sched.counters.overran,
        "tried again after that": world.sched.counters.retried["timeout"],
    }


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_every_job_ends_exactly_once(first: int) -> None:
    total = live_all(first, live, moves)
    seen = ["stolen", "revoked", "dropped", "collected", "children"]
    seen += ["held back", "withheld", "set aside", "overran", "tried again after that"]
    seen += ["left", "left with work", "told"]
    for each in ("ok", "error", "timeout", "cancelled", "lost", *seen):
        assert total[each], f"the worlds are too tame: nothing was {each}"


def test_a_seed_repeats_its_world_exactly() -> None:
    assert_repeats(live, 5)


def test_a_world_that_fails_tells_the_last_events() -> None:
    world = World(3)
    world.step = lambda: pytest.fail("a fault") if world.sched.unfinished else World.step(world)  # type: ignore[method-assign]
    with pytest.raises(pytest.fail.Exception) as failed:
        world.live(STEPS)
    assert "Submitted(session" in failed.value.__notes__[0]


def test_a_limit_that_is_taken_for_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that was: another attempt at the limit, beside the frame of the last one."""

    def passed(limits: Limits, record: PRecord, token: int, now: int) -> None:
        job = record.end_lease(token)
        if job is None:
            return
        record.overrunning[token] = Overrun(job, now)
        if not limits._ledger.retried(job, Outcome.TIMEOUT, now):
            limits._ledger.finish(job, Outcome.TIMEOUT, {}, now)

    monkeypatch.setattr(Limits, "passed", passed)
    with pytest.raises(AssertionError, match="attempts overlap"):
        [live_all(first, live, moves) for first in range(0, SEEDS, 20)]
