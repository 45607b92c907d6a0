"""Reports of jobs: from ``gmpd.progress`` to the instruction for their client."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

import gmpd
from gmpd import protocol
from gmpd.daemon.reports import EVERY_S, Reports, rows_of
from gmpd.errors import ProtocolError
from gmpd.protocol import FROM_WORKER, Output, Progress, pack, unpack
from gmpd.runtime.progress import NOTE_MAX
from gmpd.runtime.roots import root
from gmpd.sched import events
from gmpd.sched.captured import LEAST, Ring, whole
from gmpd.sched.instructions import NotifyProgress, PassOutput, SendOutcomes
from gmpd.sched.records import Job as JobRecord
from gmpd.sched.records import PRecord, Session
from tests.desk import Desk, only


class Job:
    """Keeps what its code tells."""

    def __init__(self, token: int = 1) -> None:
        self.token = token
        self.told: list[Any] = []

    def progressed(self, progress: Any) -> None:
        self.told.append(progress)


def told_by(call: Callable[[], object]) -> list[Any]:
    """The reports of ``call``, run as code of a job."""
    job = Job()
    context = copy_context()
    context.run(root.set, job)
    context.run(call)
    return job.told


# -- gmpd.progress -------------------------------------------------------------------------------


def test_progress_keeps_numbers_of_any_kind() -> None:
    def tell() -> None:
        gmpd.progress(3, 10, "reading")
        gmpd.progress(0.5)
        gmpd.progress(Decimal("1.5"), True + 1)  # type: ignore[arg-type]

    assert told_by(tell) == [(3, 10, "reading"), (0.5, None, ""), (1.5, 2, "")]


@pytest.mark.parametrize(
    ("args", "error", "name"),
    [
        ((float("nan"),), ValueError, "done"),
        ((-1,), ValueError, "done"),
        ((1, -0.5), ValueError, "total"),
        ((1, float("inf")), ValueError, "total"),
        ((1 << 62,), ValueError, "done"),
        (("3",), TypeError, "done"),
        ((None,), TypeError, "done"),
        ((True,), TypeError, "done"),
        ((1, b"2"), TypeError, "total"),
        ((1, 2, 3), TypeError, "note"),
        ((1, 2, None), TypeError, "note"),
    ],
)
def test_a_wrong_argument_of_progress_is_named(
    args: tuple[Any, ...], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=f"^{name}="):
        gmpd.progress(*args)


def test_progress_outside_of_a_job_does_nothing() -> None:
    gmpd.progress(1, 2, "here")

    async def main() -> None:
        gmpd.progress(1)
        await gmpd.go(lambda: gmpd.progress(2))

    gmpd.run(main())


# -- the worker ----------------------------------------------------------------------------------


class Callbacks:
    """Of a P whose time is kept by hand."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def threadsafe(self, fn: Callable[..., Any], *args: Any) -> None:
        fn(*args)

    def later(self, delay_s: float, fn: Callable[[], None]) -> None:
        self.timers.append((delay_s, fn))

    def pass_time(self) -> None:
        timers, self.timers = self.timers, []
        for _, fn in timers:
            fn()


class Link:
    """The reports of a worker with three attempts, and what it sends."""

    def __init__(self) -> None:
        self.attempts = {token: Job(token) for token in (1, 2, 3)}
        self.callbacks = Callbacks()
        self.sent: list[dict[int, Any]] = []
        self.p = p = SimpleNamespace(forked=False, p_callbacks=self.callbacks)
        self.printed: list[dict[int, tuple[bytes, int]]] = []
        self.reports = Reports(self.attempts, cast("Any", p), 100, self._send)

    def _send(self, message: Progress | Output) -> None:
        assert unpack(pack(message), FROM_WORKER) == message
        if isinstance(message, Progress):
            self.sent.append(dict(rows_of(message)))
        else:
            rows = zip(message.chunks, message.skipped, strict=True)
            self.printed.append(dict(zip(message.jobs, rows, strict=True)))

    def tell(self, token: int, done: float, note: str = "") -> None:
        self.reports.progressed(self.attempts[token], (done, None, note))


def test_a_worker_sends_the_latest_progress_of_each_job_after_a_while() -> None:
    link = Link()
    assert not link.reports
    for n in range(1000):
        link.tell(1, n)
    link.tell(2, 5)
    assert [delay for delay, _ in link.callbacks.timers] == [EVERY_S]
    assert link.sent == []
    link.callbacks.pass_time()
    assert link.sent == [{1: (999, None, ""), 2: (5, None, "")}]
    link.callbacks.pass_time()
    assert len(link.sent) == 1  # nothing new: no timer, no message
    link.tell(1, 1000)
    link.callbacks.pass_time()
    assert link.sent[1:] == [{1: (1000, None, "")}]


def test_the_last_progress_of_a_job_leaves_before_its_outcome() -> None:
    link = Link()
    link.tell(1, 7)
    job = link.attempts.pop(1)
    assert not link.reports.ended(job)  # no output: its outcome may be stored meanwhile
    link.reports.flush()
    assert link.sent == [{1: (7, None, "")}]
    link.reports.progressed(job, (8, None, ""))  # a child of it that runs on
    link.callbacks.pass_time()
    assert len(link.sent) == 1


def test_a_note_is_cut_and_fits_a_line_and_a_message() -> None:
    link = Link()
    link.tell(1, 1, "a\x1b[31mb\n\ud800" + "x" * 1000)
    link.callbacks.pass_time()
    (_, _, note) = link.sent[0][1]
    assert note.startswith("a [31mb  xx")
    assert len(note) == NOTE_MAX


# -- the wire ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Progress([1], [1, 2], [None], [""]),
        Progress([1], [-1], [None], [""]),
        Progress([1], [float("nan")], [None], [""]),
        Progress([1], [1], [float("inf")], [""]),
        Progress([1], [1], [None], ["x" * 300]),
    ],
)
def test_a_wrong_progress_message_is_refused(message: Progress) -> None:
    with pytest.raises(ProtocolError):
        unpack(pack(message), FROM_WORKER)


# -- the policy ----------------------------------------------------------------------------------


def progressed(desk: Desk, p: PRecord, tokens: list[int], done: int) -> list[NotifyProgress]:
    n = len(tokens)
    message = Progress(tokens, [done] * n, [10] * n, ["note"] * n)
    desk.tell(events.Progressed(p.p, p.epoch, message))
    return only(desk.take(), NotifyProgress)


def watching(desk: Desk, *, watches: bool = True) -> tuple[PRecord, list[int]]:
    """P0 with two jobs of a client that have begun."""
    p = desk.ready(0)
    sid = desk.sched.next_sid
    desk.tell(events.SessionOpened(sid, "c", "c", watches=watches))
    desk.next_seq[sid] = 5
    desk.teach(p, desk.sched.sessions[sid], "m:f", 0.01)
    seqs = desk.submit(desk.sched.sessions[sid], 2)
    desk.take()
    desk.start(p)
    desk.take()
    return p, seqs


def test_a_client_that_wants_it_is_told_how_far_its_jobs_are() -> None:
    desk = Desk()
    p, seqs = watching(desk)
    (told,) = progressed(desk, p, list(p.started), 3)
    assert told.message == Progress(seqs, [3, 3], [10, 10], ["note", "note"])
    assert told.session.name == "c"


def test_a_client_that_does_not_want_it_is_told_nothing() -> None:
    desk = Desk()
    p, _ = watching(desk, watches=False)
    assert progressed(desk, p, list(p.started), 3) == []
    assert {each[0] for each in desk.sched.progress.values()} == {3}


def test_progress_ends_with_its_job_and_that_of_ended_jobs_changes_nothing() -> None:
    desk = Desk()
    p, seqs = watching(desk)
    tokens = list(p.started)
    progressed(desk, p, tokens, 3)
    desk.end(p, tokens[:1])
    assert [job.seq for job in desk.sched.progress] == seqs[1:]
    (told,) = progressed(desk, p, tokens, 4)
    assert told.message.jobs == seqs[1:]
    desk.end(p, tokens[1:], protocol.Outcome.ERROR)
    assert not desk.sched.progress
    assert progressed(desk, p, tokens, 5) == []


def test_the_progress_of_a_child_goes_to_the_worker_of_its_parent() -> None:
    desk = Desk()
    home, away = desk.ready(0), desk.ready(1)
    parent = desk.parent(home)
    (seq,) = desk.submit(parent, 1, child=(0, 1))
    desk.take()
    holder = next(p for p in (home, away) if p.fresh)
    (told,) = progressed(desk, holder, list(holder.fresh), 3)
    assert told.session.parent is home
    assert told.message.jobs == [seq]
    assert not desk.sched.progress


# -- output --------------------------------------------------------------------------------------


def test_a_worker_sends_the_output_of_a_job_and_its_rest_before_the_outcome() -> None:
    link = Link()
    job = link.attempts[1]
    assert link.reports.printed(job, b"one ")
    assert link.reports.printed(job, b"two ")
    link.callbacks.pass_time()
    assert link.printed == [{1: (b"one two ", 0)}]
    link.reports.printed(job, b"three")
    del link.attempts[1]
    assert link.reports.ended(job), "its outcome must not be stored: it would overtake this"
    link.reports.flush()
    assert link.printed[1:] == [{1: (b"three", 0)}]
    assert not link.reports.printed(job, b"later: where the process prints")
    link.callbacks.pass_time()
    assert len(link.printed) == 2


def test_of_output_that_is_not_sent_yet_the_last_bytes_are_kept() -> None:
    link = Link()
    job = link.attempts[1]
    for n in range(100):
        link.reports.printed(job, b"%05d" % n)
    link.callbacks.pass_time()
    assert link.printed == [{1: (b"".join(b"%05d" % n for n in range(80, 100)), 400)}]
    link.reports.printed(job, b"x" * 1000)
    link.reports.printed(job, b"\n")
    link.callbacks.pass_time()
    assert link.printed[1:] == [{1: (b"x" * 99 + b"\n", 901)}]


def test_a_process_that_a_job_forked_tells_nothing() -> None:
    link = Link()
    link.p.forked = True
    assert not link.reports.printed(link.attempts[1], b"child")
    link.tell(1, 1)
    assert not link.reports


def test_a_ring_keeps_the_last_bytes_and_knows_all_that_were_written() -> None:
    ring = Ring(1)
    for n in range(100):
        ring.add(b"%03d\n" % n, 0, 40)
    assert ring.since(0) == b"".join(b"%03d\n" % n for n in range(90, 100))
    assert (ring.end, ring.nbytes) == (400, 40)
    assert ring.since(396) == b"099\n"
    assert ring.since(400) == b""
    ring.add(b"after a gap", 1000, 40)
    assert ring.since(0) == b"after a gap"
    assert ring.end == 400 + 1000 + 11


@pytest.mark.parametrize("most", range(1, 12))
def test_a_ring_does_not_begin_in_the_middle_of_a_character(most: int) -> None:
    ring = Ring(1)
    for _ in range(5):
        ring.add("é€😀".encode(), 0, most)
    ring.since(0).decode()
    assert most - 3 <= ring.nbytes <= most or ring.nbytes == 0
    assert whole(b"\x80" * 10) == b"\x80" * 10  # that is no UTF-8


def captured_job(desk: Desk, p: PRecord) -> JobRecord:
    (token,) = [token for token, job in p.started.items() if job.options is not None]
    return p.started[token]


def printing(**policy: Any) -> tuple[Desk, PRecord, Session]:
    desk = Desk(**policy)
    p, client, _ = desk.begun(capture=True)
    return desk, p, client


def printed(desk: Desk, p: PRecord, chunk: bytes, skipped: int = 0) -> list[PassOutput]:
    tokens = [*p.started, *p.fresh]
    message = Output(tokens, [chunk] * len(tokens), [skipped] * len(tokens))
    desk.tell(events.Printed(p.p, p.epoch, message))
    return only(desk.take(), PassOutput)


def test_output_is_kept_while_its_job_runs() -> None:
    desk, p, _ = printing()
    job = captured_job(desk, p)
    assert desk.sched.output.of(job) is None
    assert printed(desk, p, b"one\n") == []
    printed(desk, p, b"two\n")
    ring = desk.sched.output.of(job)
    assert ring is not None
    assert ring.since(0) == b"one\ntwo\n"
    desk.end(p)
    assert not desk.sched.output.rings
    assert desk.sched.output.nbytes == 0


def test_the_end_of_a_durable_attempt_carries_its_output_and_its_p() -> None:
    desk, p, client = printing()
    client.patient = True
    printed(desk, p, b"words")
    (sent,) = only(desk.end(p), SendOutcomes)
    ((outcome, details),) = sent.outcomes.specials.values()
    assert outcome is protocol.Outcome.OK
    assert (details["log"], details["log_end"], details["p"]) == (b"words", 5, 0)
    desk.submit(client, 3)
    desk.take()
    (sent,) = only(desk.end(p), SendOutcomes)
    assert {each[1]["p"] for each in sent.outcomes.specials.values()} == {0}
    assert len(sent.outcomes.specials) == 3


def test_all_output_together_has_a_bound() -> None:
    desk = Desk(job_output=10_000, output=50_000, credit_max=256)
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 0.001)
    desk.submit(client, 100, capture=True)
    desk.take()
    desk.start(p)
    for _ in range(20):
        printed(desk, p, b"x" * 1000)
    assert len(p.started) == 100
    assert desk.sched.output.nbytes <= 50_000 + 100 * LEAST
    desk.end(p)
    assert desk.sched.output.nbytes == 0


def test_the_output_of_a_child_goes_to_the_worker_of_its_parent() -> None:
    desk = Desk()
    home, away = desk.ready(0), desk.ready(1)
    parent = desk.parent(home)
    (seq,) = desk.submit(parent, 1, child=(0, 1), capture=True)
    desk.take()
    holder = next(p for p in (home, away) if p.fresh)
    (passed,) = printed(desk, holder, b"child", 3)
    assert passed.session.parent is home
    assert passed.message == Output([seq], [b"child"], [3])
    assert not desk.sched.output.rings


def test_a_new_attempt_begins_with_no_output() -> None:
    desk = Desk()
    p, _, _ = desk.begun(capture=True, retries=1)
    printed(desk, p, b"first")
    desk.end(p, outcome=protocol.Outcome.ERROR)
    desk.take(after_ms=1000)
    desk.start(p)
    desk.take()
    job = captured_job(desk, p)
    assert desk.sched.output.of(job) is None
    printed(desk, p, b"second")
    ring = desk.sched.output.of(job)
    assert ring is not None
    assert ring.since(0) == b"second"
    assert desk.sched.output.nbytes == 6
