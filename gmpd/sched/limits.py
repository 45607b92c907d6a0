"""Time limits of attempts: the outcome at a limit, and functions that run on beyond it.

**The tension.** A client needs the outcome at the limit; another attempt may start only when the
frame of the last one has ended. Nothing can end a frame that ignores its interrupt, swallows its
cancellation or computes in C, so the two moments may lie far apart.

**Rejected.** A retry at the limit: attempts of one job ran beside each other in one process. An
outcome only when the frame has ended: a client would wait for ever for a frame that never ends.

**Chosen.** The limit ends the *wait*. Its attempt leaves the lease and is *overrunning* until its
frame has ended (its worker reports that) or its worker is confirmed dead. A job without a further
attempt gets its outcome at the limit. One with retries waits for that end, at most until
twice its limit; then it gets its outcome too, because no attempt could start.

The worker reports a limit that has passed. One that cannot (it is stopped, or C code holds its GIL)
is not waited for: the policy has its own clock for every attempt that began, a little slower.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from gmpd.protocol import Outcome
from gmpd.sched.instructions import Instruction, RecoverOutcomes
from gmpd.sched.isolated import IsolatedP
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import NO_BUFFERS, Job, Overrun, PRecord
from gmpd.sched.states import JobState, transition

#: The policy's own clock is this much slower than the worker's.
TELL_NS = 100_000_000
#: Then the worker's shared memory is read, and this much later the limit counts.
LOOK_NS = 20_000_000
#: Entries of ended attempts that may stay in the heap; more are swept at times.
_DEAD_MAX = 64

#: A worker that was killed is confirmed dead within this, unless it hangs in the kernel.
OUTLIVES_NS = 10_000_000_000

RUNS_ON = "its function does not stop and continues in its worker"
ENDS_SOON = "its function does not stop, and ends with its worker after kill_after at the latest"
ENDED_WITH_WORKER = "its function did not stop, and its worker was replaced"
OUTLIVED = "its worker was killed and has not ended"
NO_RETRY = (
    "its function was still running after twice its timeout, and no attempt may start beside it"
    " (isolate=True ends a function with its process)"
)


class Limits:
    """The limits of attempts that began. ``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._out = out
        #: (when, a count that keeps entries apart, P, token, whether its shared memory was read).
        self._heap: list[tuple[int, int, PRecord, int, bool]] = []
        self._count = 0
        self._sweep_at = _DEAD_MAX

    # -- events ------------------------------------------------------------------------------------

    def began(self, record: PRecord, job: Job, now: int) -> None:
        """An attempt has begun and did not end at once."""
        limit_ns = _limit_ns(job)
        if limit_ns is not None and not isinstance(record, IsolatedP):  # that one has its own
            self._push(now + limit_ns + TELL_NS, record, job.token)

    def passed(
        self,
        record: PRecord,
        token: int,
        now: int,
        outcome: Outcome = Outcome.TIMEOUT,
        text: str = "",
    ) -> None:
        """The limit of an attempt has passed, or it was cancelled by force, and its frame has not
        ended. ``text``: what is said of that."""
        job = record.end_lease(token)
        if job is None:
            return
        if job.state is JobState.LEASED:
            transition(job, JobState.STARTED)
        gates = self._ledger.gates
        place = gates.overruns(job, now) if gates.passes else None
        overrun = record.overrunning[token] = Overrun(job, now, place)
        self._ledger.counters.overran += outcome is Outcome.TIMEOUT
        waits = job.session.patient or self._ledger.may_retry(job, Outcome.TIMEOUT)
        if outcome is Outcome.CANCELLED or not waits:
            self._tell(job, text or (ENDS_SOON if _is_killed(job) else RUNS_ON), now, outcome)
            return
        transition(job, JobState.OVERRUNNING)
        overrun.waits = job
        overrun.until_ns = now + self._patience_ns(job)
        self._push(overrun.until_ns, record, token)

    def ended(self, record: PRecord, token: int, now: int) -> bool:
        """Whether this attempt was overrunning; its frame has ended now, with any result."""
        overrun = record.overrunning.pop(token, None)
        if overrun is None:
            return False
        if overrun.limit is not None:
            self._ledger.gates.frame_ended(overrun.limit)
        if overrun.waits is not None:
            self._again(overrun.waits, (now - overrun.since_ns) // 1000, now)
        return True

    def died(self, record: PRecord, now: int) -> None:
        """The worker is confirmed dead, and every frame in it has ended."""
        for token in list(record.overrunning):
            self.ended(record, token, now)

    def _patience_ns(self, job: Job) -> int:
        """How long a job waits for the end of its frame, from its time limit on."""
        limit_ns = _limit_ns(job) or 0
        kill_after_s = job.option("kill_after", None)
        if kill_after_s is None:
            return limit_ns
        left_ns = int(kill_after_s * 1e9) - limit_ns if job.option("timeout", None) else 0
        return left_ns + self._ledger.policy.grace_ns + OUTLIVES_NS

    def _again(self, job: Job, over_us: int, now: int) -> None:
        """The frame of an attempt has ended, ``over_us`` after its limit."""
        ran_us = (_limit_ns(job) or 0) // 1000 + over_us
        if not self._ledger.retried(job, Outcome.TIMEOUT, now, ran_us=ran_us):
            details = {"text": ENDED_WITH_WORKER} if _is_killed(job) else {}
            self._ledger.finish(job, Outcome.TIMEOUT, details, now, ran_us=ran_us)

    def _tell(self, job: Job, text: str, now: int, outcome: Outcome = Outcome.TIMEOUT) -> None:
        ran_us = (_limit_ns(job) or 0) // 1000
        details = {"text": text, "runs_on": True}
        self._ledger.finish(job, outcome, details, now, ran_us=ran_us)
        job.payload, job.buffers = b"", NO_BUFFERS  # it is remembered for its name alone

    # -- decisions ---------------------------------------------------------------------------------

    def due(self, now: int) -> None:
        """Attempts whose worker did not report in time; jobs that waited long enough for an end."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, record, token, looked = heappop(heap)
            overrun = record.overrunning.get(token)
            if overrun is not None:
                if overrun.waits is not None and overrun.until_ns <= now:
                    self._tell(overrun.waits, _no_retry(overrun.waits), now)
            elif record.job(token) is None or token in record.withheld:
                continue
            elif looked:
                self.passed(record, token, now)
            else:  # it may have ended in time, and its worker stands still since
                self._out.append(RecoverOutcomes(record))
                self._push(now + LOOK_NS, record, token, looked=True)

    def next_due(self) -> int | None:
        """The earliest time at which ``due`` will act."""
        heap = self._heap
        while heap and _is_over(heap[0][2], heap[0][3]):
            heappop(heap)
        return heap[0][0] if heap else None

    def _push(self, due_ns: int, record: PRecord, token: int, *, looked: bool = False) -> None:
        self._count += 1
        heappush(self._heap, (due_ns, self._count, record, token, looked))
        if len(self._heap) > self._sweep_at:
            self._heap = [each for each in self._heap if not _is_over(each[2], each[3])]
            heapify(self._heap)
            self._sweep_at = max(_DEAD_MAX, 2 * len(self._heap))


def _is_killed(job: Job) -> bool:
    """Whether its function ends with its worker at some time."""
    return job.option("kill_after", None) is not None


def _no_retry(job: Job) -> str:
    return OUTLIVED if _is_killed(job) else NO_RETRY


def _limit_ns(job: Job) -> int | None:
    limit_s = job.option("timeout", None)
    return None if limit_s is None else int(limit_s * 1e9)


def _is_over(record: PRecord, token: int) -> bool:
    """Nothing can become due for this attempt any more."""
    overrun = record.overrunning.get(token)
    return overrun.waits is None if overrun is not None else record.job(token) is None
