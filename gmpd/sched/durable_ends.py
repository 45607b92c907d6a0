"""Judges attempts of durable jobs: the job has ended, is tried again, or was not at fault.

It decides, and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, assert_never

import msgspec

from gmpd.protocol import Options, Outcome
from gmpd.sched.deaths import SPARED_MAX
from gmpd.sched.records import Outcomes
from gmpd.sched.retries import allows, wait_ns
from gmpd.sched.stored import (
    BLOCKED_MS,
    Again,
    Answer,
    Attempt,
    Ended,
    QueuedJob,
    StoredJob,
    StoredResult,
    StoredState,
)

#: Characters of an error that are kept beside it, for lists.
TEXT_MAX = 300

#: As ``codec.encode_error`` names the error of a worker that cannot import a job's function.
_NOT_REGISTERED = ("gmpd.errors", "NotRegistered")


class Held:
    """A job in the window: what was submitted as ``seq``."""

    __slots__ = ("cancelling", "job", "limit", "seq", "started_ms", "why")

    def __init__(self, job: QueuedJob, seq: int, limit: str) -> None:
        self.job = job
        self.seq = seq
        #: The key of its limit; empty: it has none.
        self.limit = limit
        self.cancelling = False
        #: Why it is cancelled; empty: a client asked for it.
        self.why = ""
        #: When it was reported to run (ms); 0: not yet.
        self.started_ms = 0

    def why_it_ended(self, text: str) -> str:
        """It was cancelled, and ended with ``text``."""
        return f"{self.why}: {text}" if self.why and text else self.why or text


class _End(Protocol):
    """Makes the end of the job at hand."""

    def __call__(self, state: StoredState, text: str = "") -> Ended: ...


class Judge:
    """``strikes``: a job that ended as many workers is quarantined. ``jitter`` gives a number from
    0 to 1, at random."""

    def __init__(self, strikes: int, jitter: Callable[[], float]) -> None:
        self._strikes = strikes
        self._jitter = jitter
        self._options: dict[bytes, tuple[Options, Options]] = {}

    def options(self, job: QueuedJob, wall_ms: int) -> Options:
        """The options with which the ledger gets a job: one attempt, at once."""
        single = self._parsed(job.options)[1]
        if single.backoff_fn is not None:
            single = msgspec.structs.replace(single, attempt=job.used)
        if job.expires_ms is not None:
            left_s = max(0, job.expires_ms - wall_ms) / 1000
            single = msgspec.structs.replace(single, expires=left_s)
        return single

    def _parsed(self, packed: bytes) -> tuple[Options, Options]:
        found = self._options.get(packed)
        if found is None:
            whole = msgspec.msgpack.decode(packed, type=Options)
            single = msgspec.structs.replace(
                whole, retries=0, delay=0.0, unique=None, on_held="return", durable=False
            )
            if len(self._options) >= 1024:
                self._options.clear()
            found = self._options[packed] = whole, single
        return found

    def judge(self, held: Held, out: Outcomes, row: int, wall_ms: int) -> Ended | Again | None:
        """The consequence of one outcome; None: the job was not at fault, and waits again."""
        outcome, details = out.specials.get(row, (Outcome.OK, _NOTHING))
        payload, buffers = out.payloads[row], tuple(map(bytes, out.buffers[row] or ()))
        job = held.job
        name = "expired" if details.get("expired") else outcome.name.lower()

        def attempt(text: str = "") -> Attempt:
            error = payload if outcome is Outcome.ERROR else b""
            return Attempt(
                job.attempt, wall_ms, out.ran_us[row], details.get("p"), details.get("pid"),
                name, error, text or details.get("text", ""),
                _began_ms(held, wall_ms, out.ran_us[row]),
                job.deaths + bool(outcome is Outcome.LOST and details.get("blamed")),
                details.get("log_end", 0), details.get("log", b""),
            )  # fmt: skip

        def end(state: StoredState, text: str = "") -> Ended:
            return Ended(job.number, state, payload, buffers, attempt(text))

        match outcome:
            case Outcome.OK:
                return end(StoredState.DONE)
            case Outcome.CANCELLED | Outcome.REJECTED:
                return _unbegun(held, attempt())
            case Outcome.ERROR:
                text = _text_of(payload, details.get("remark", ""))
                return self._failed(held, attempt(text), end, details, payload)
            case Outcome.TIMEOUT if details.get("expired") or details.get("runs_on"):
                return end(StoredState.EXPIRED if details.get("expired") else StoredState.FAILED)
            case Outcome.TIMEOUT:
                return self._failed(held, attempt(), end, details)
            case Outcome.LOST:
                return self._lost(held, details, attempt(), end)
            case _:
                assert_never(outcome)

    def _failed(
        self,
        held: Held,
        attempt: Attempt,
        end: _End,
        details: dict[str, Any],
        error: bytes = b"",
    ) -> Ended | Again | None:
        """It raised, or ran too long."""
        job = held.job
        options = self._parsed(job.options)[0]
        if held.cancelling:
            return end(StoredState.CANCELLED, held.why_it_ended(attempt.text))
        if error and _kind_of(error) == _NOT_REGISTERED:
            return Again(
                job.number, job.attempt, job.deaths, job.spared, attempt.ended_ms + BLOCKED_MS,
                attempt, StoredState.BLOCKED,
            )  # fmt: skip
        may = error or allows(options, Outcome.TIMEOUT)
        if job.once or job.used > options.retries or details.get("final") or not may:
            return end(StoredState.FAILED, attempt.text)
        wait = wait_ns(options, job.used, self._jitter(), details)
        return self._again(held, attempt, wait // 1_000_000)

    def _lost(
        self, held: Held, details: dict[str, Any], attempt: Attempt, end: _End
    ) -> Ended | Again | None:
        """Its worker died, or there was none."""
        job = held.job
        if details.get("unstarted"):
            return _unbegun(held, attempt)
        if job.once:
            return end(StoredState.UNKNOWN, attempt.text)
        if held.cancelling:
            return end(StoredState.CANCELLED, held.why_it_ended(attempt.text))
        blamed = bool(details.get("blamed", True))
        deaths = job.deaths + blamed
        if deaths >= self._strikes:
            return end(StoredState.QUARANTINED, attempt.text)
        if blamed and not allows(self._parsed(job.options)[0], Outcome.LOST):
            return end(StoredState.FAILED, attempt.text)
        spared = not blamed and job.spared < SPARED_MAX
        return self._again(held, attempt, 0, deaths=deaths, spared=job.spared + spared)

    def _again(
        self,
        held: Held,
        attempt: Attempt,
        wait_ms: int,
        *,
        deaths: int | None = None,
        spared: int | None = None,
    ) -> Again:
        job = held.job
        return Again(
            job.number,
            job.attempt + 1,
            job.deaths if deaths is None else deaths,
            job.spared if spared is None else spared,
            attempt.ended_ms + wait_ms,
            attempt,
        )


_NOTHING: dict[str, Any] = {}


def _unbegun(held: Held, attempt: Attempt) -> Ended | None:
    """It has not begun, or left its frame as it was asked to."""
    if not held.cancelling:
        return None
    text = held.why_it_ended(attempt.text)
    attempt = msgspec.structs.replace(attempt, outcome=Outcome.CANCELLED.name.lower(), text=text)
    return Ended(held.job.number, StoredState.CANCELLED, b"", (), attempt)


def _began_ms(held: Held, wall_ms: int, ran_us: int) -> int:
    """One that ended at once was not reported to run."""
    return held.started_ms or (wall_ms - ran_us // 1000 if ran_us else 0)


def _kind_of(error: bytes) -> tuple[str, str]:
    told = _decoded(error)
    return str(told.get("module", "")), str(told.get("qualname", ""))


def _text_of(error: bytes, remark: str = "") -> str:
    """``codec.encode_error`` in one line, as far as it can be read; with what the worker noted."""
    told = _decoded(error)
    text = f"{told.get('type', 'an error')}: {told.get('message', '')}"[:TEXT_MAX]
    return f"{text} ({remark[:TEXT_MAX]})" if remark else text


def _decoded(error: bytes) -> dict[str, Any]:
    try:
        told = msgspec.msgpack.decode(error)
    except (msgspec.DecodeError, RecursionError):
        return _NOTHING
    return told if isinstance(told, dict) else _NOTHING


def result_of(row: Ended) -> StoredResult:
    """As the store will give it."""
    end = row.attempt
    return StoredResult(row.state, row.value, row.buffers, end.ran_us, end.outcome, end.n, end.text)


def known_to(owner: str, answer: Answer) -> tuple[StoredJob | None, ...]:
    """Jobs that were found, without those of others."""
    assert isinstance(answer, tuple), answer
    found: tuple[StoredJob | None, ...] = answer  # type: ignore[assignment]
    return tuple(job if job is not None and job.owner == owner else None for job in found)
