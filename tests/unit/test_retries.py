"""Whether and when a failed job is tried again: for jobs of the ledger and durable ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gmpd import protocol
from gmpd.codec import describe_function, encode_error
from gmpd.daemon.advice import advise
from gmpd.daemon.failures import Line
from gmpd.job import DECLARED, Backoff, class_name
from gmpd.protocol import Options, Outcome, Report
from gmpd.sched.durable_ends import Held, Judge
from gmpd.sched.records import Outcomes
from gmpd.sched.retries import allows, wait_ns
from gmpd.sched.stored import Again, Ended, QueuedJob, StoredState
from tests.desk import MS, Desk, handed

OS_ERRORS = ("builtins.OSError",)
SECOND = 1_000_000_000


# ------------------------------------------------------------------------------------ the waits


def test_waits_grow_up_to_the_cap_and_are_shortened_at_random() -> None:
    options = protocol.options({"backoff": Backoff(1, cap=5, factor=2, jitter=0.5).to_wire()})
    assert [wait_ns(options, used, 0) // SECOND for used in (1, 2, 3, 4, 1000)] == [1, 2, 4, 5, 5]
    assert wait_ns(options, 4, 1) == 2.5 * SECOND
    assert [wait_ns(None, used, 0) // MS for used in (1, 2, 9, 10)] == [100, 200, 25_600, 30_000]
    steep = protocol.options({"backoff": Backoff(1, factor=1000, cap=7, jitter=0).to_wire()})
    assert wait_ns(steep, 1000, 0.5) == 7 * SECOND
    assert wait_ns(steep, 3, 0.5, {"wait_s": 0.25}) == SECOND // 4


def test_jobs_that_fail_together_come_back_apart(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 0.01)
    desk.submit(client, 50, retries=1, backoff=(10, 10, 1, 1))
    desk.take()
    desk.finish(p, outcome=Outcome.ERROR)
    desk.take()
    dues = sorted(due - desk.now for due, _, _ in desk.sched.delays._heap)
    assert len(dues) == 50
    assert dues[0] < 2 * SECOND
    assert 8 * SECOND < dues[-1] <= 10 * SECOND


def test_the_worker_may_choose_the_wait_or_forbid_another_attempt(desk: Desk) -> None:
    p, client, seq = desk.leased(retries=9)
    desk.finish(p, outcome=Outcome.ERROR, report={"wait_s": 0.5})
    assert not handed(desk.take(after_ms=499))
    assert handed(desk.take(after_ms=1))
    desk.end(p, outcome=Outcome.ERROR, report={"final": True})
    assert desk.ended(client, seq) is Outcome.ERROR
    assert desk.details(client, seq)["attempt"] == 2


def test_a_remark_of_the_worker_is_logged(desk: Desk) -> None:
    p, _, _ = desk.leased(retries=1)
    desk.end(p, outcome=Outcome.ERROR, report={"remark": "backoff=m:f raised KeyError"})
    (failure,) = desk.sched.take_failures()
    assert (failure.text, failure.again) == ("backoff=m:f raised KeyError", True)
    raised = failure._replace(payload=encode_error(OSError("no\nmore")))
    assert "failed: OSError: no (backoff=m:f raised KeyError) (attempt 1" in str(Line(raised))


def test_only_a_function_for_the_wait_is_told_the_attempt(desk: Desk) -> None:
    p, client, seq = desk.leased(retries=3, backoff_fn=("name", "m:wait", b""))
    for attempt in (2, 3):
        desk.finish(p, outcome=Outcome.ERROR, report={"wait_s": 0})
        desk.take(after_ms=1)
        options = client.jobs[seq].options
        assert options is not None
        assert options.attempt == attempt
    other = Desk()
    p, client, seq = other.leased(retries=3)
    other.finish(p, outcome=Outcome.ERROR)
    assert client.jobs[seq].options == protocol.options({"retries": 3})


# ------------------------------------------------------------------------------------- retry_on


@pytest.mark.parametrize(
    ("names", "timeouts", "losses"),
    [
        (None, True, True),
        (("builtins.OSError",), True, False),  # a JobTimeout is a TimeoutError, an OSError
        (("builtins.KeyError",), False, False),
        (("gmpd.errors.WorkerLost",), False, True),
        (("builtins.Exception",), True, True),
    ],
)
def test_time_limits_and_deaths_count_by_their_exceptions(
    desk: Desk, names: tuple[str, ...] | None, timeouts: bool, losses: bool
) -> None:
    options = None if names is None else protocol.options({"retry_on": names})
    assert allows(options, Outcome.ERROR)
    assert allows(options, Outcome.TIMEOUT) is timeouts
    assert allows(options, Outcome.LOST) is losses
    told = {} if names is None else {"retry_on": names}
    p, client, seq = desk.begun(retries=5, **told)
    (token,) = p.started
    desk.died(0, [token], token)
    desk.take()
    assert desk.ended(client, seq) is (None if losses else Outcome.LOST)
    other = Desk()
    p, client, seq = other.leased(retries=5, **told)
    other.end(p, outcome=Outcome.TIMEOUT)
    assert other.ended(client, seq) is (None if timeouts else Outcome.TIMEOUT)


# ----------------------------------------------------------------------------------- durable jobs


def judged(
    outcome: Outcome, details: dict[str, Any] | None = None, *, attempt: int = 1,
    cancelling: bool = False, **options: Any,
) -> Ended | Again | None:  # fmt: skip
    """The judgement of one attempt, at the moment 0; the dice say 0."""
    packed = msgspec.msgpack.encode(Options(**{"retries": 2, **options}))
    job = QueuedJob(7, b"i" * 16, b"f", packed, b"", (), attempt, 0, 0, None, False)
    out = Outcomes()
    payload = encode_error(OSError("no")) if outcome is Outcome.ERROR else b""
    out.payloads, out.buffers, out.ran_us = [payload], [()], [5]
    out.specials = {0: (outcome, details or {})}
    held = Held(job, 1, "")
    held.cancelling = cancelling
    return Judge(3, lambda: 0.0).judge(held, out, 0, 0)


@pytest.mark.parametrize(
    ("outcome", "details"), [(Outcome.REJECTED, {}), (Outcome.LOST, {"unstarted": True})]
)
def test_a_durable_job_that_could_not_begin_waits_unless_it_was_cancelled(
    outcome: Outcome, details: dict[str, Any]
) -> None:
    assert judged(outcome, details) is None
    ended = judged(outcome, details, cancelling=True)
    assert isinstance(ended, Ended)
    assert (ended.state, ended.attempt.outcome) == (StoredState.CANCELLED, "cancelled")


def test_a_durable_job_waits_as_its_options_say() -> None:
    backoff = Backoff(2, cap=3).to_wire()
    for attempt, wait_ms in ((1, 2000), (2, 3000)):
        again = judged(Outcome.ERROR, attempt=attempt, backoff=backoff)
        assert isinstance(again, Again)
        assert (again.next_attempt, again.run_at_ms) == (attempt + 1, wait_ms)
    assert isinstance(judged(Outcome.ERROR, attempt=3), Ended)
    chosen = judged(Outcome.ERROR, {"wait_s": 9.5})
    assert isinstance(chosen, Again)
    assert chosen.run_at_ms == 9500


def test_the_story_of_a_durable_job_names_a_function_that_failed() -> None:
    again = judged(Outcome.ERROR, {"remark": "backoff=m:f gave None"})
    assert isinstance(again, Again)
    assert again.attempt.text == "OSError: no (backoff=m:f gave None)"


@pytest.mark.parametrize(
    ("outcome", "details"),
    [
        (Outcome.ERROR, {"final": True}),
        (Outcome.TIMEOUT, {}),
        (Outcome.LOST, {"blamed": True, "text": "killed"}),
    ],
)
def test_a_durable_job_is_not_tried_again_after_another_exception(
    outcome: Outcome, details: dict[str, Any]
) -> None:
    ended = judged(outcome, details, retry_on=("builtins.KeyError",))
    assert isinstance(ended, Ended)
    assert ended.state is StoredState.FAILED


def test_a_durable_job_that_only_ran_beside_a_death_runs_again() -> None:
    assert isinstance(judged(Outcome.LOST, {"blamed": False}, retry_on=OS_ERRORS), Again)


def test_a_function_of_durable_jobs_is_told_the_attempt() -> None:
    judge = Judge(3, lambda: 0.0)
    for told, expected in ((None, None), (("name", "m:wait", b""), 4)):
        packed = msgspec.msgpack.encode(Options(retries=9, backoff_fn=told))
        job = QueuedJob(7, b"i" * 16, b"f", packed, b"", (), 6, 0, 2, None, False)
        assert judge.options(job, 0).attempt == expected


def test_a_durable_job_that_is_held_expires_when_its_row_says() -> None:
    judge = Judge(3, lambda: 0.0)
    packed = msgspec.msgpack.encode(Options())
    job = QueuedJob(7, b"i" * 16, b"f", packed, b"", (), 1, 0, 0, 5000, False)
    assert [judge.options(job, wall_ms).expires for wall_ms in (3000, 5000, 6000)] == [2, 0, 0]
    ended = judged(Outcome.TIMEOUT, {"expired": True, "text": "too late"})
    assert isinstance(ended, Ended)
    assert ended.state is StoredState.EXPIRED
    assert (ended.attempt.outcome, ended.attempt.text) == ("expired", "too late")


# ------------------------------------------------------------------------- advice of the worker


def advice(error: BaseException, **options: Any) -> Report | None:
    return advise(Options(**options), error, describe_function(len))


class _Strange(Exception):
    __module__ = 5  # type: ignore[assignment]


def test_subclasses_of_the_named_exceptions_are_tried_again() -> None:
    assert advice(FileNotFoundError(), retry_on=OS_ERRORS) is None
    assert advice(KeyError(), retry_on=OS_ERRORS) == {"final": True}
    assert advice(KeyboardInterrupt(), retry_on=("builtins.Exception",)) == {"final": True}
    assert advice(_Strange(), retry_on=(class_name(_Strange),)) is None
    assert advice(_Strange(), retry_on=OS_ERRORS) == {"final": True}


def wait(attempt: int, error: BaseException) -> Any:
    given = error.args[0]
    if isinstance(given, BaseException):
        raise given
    return attempt * given if isinstance(given, float) else given


async def wait_later(_attempt: int, _error: BaseException) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.25, {"wait_s": 0.75}),
        (None, None),
        (-1, {"remark": "backoff=%s:wait gave -1, no number of seconds: the usual wait"}),
        (
            float("nan"),
            {"remark": "backoff=%s:wait gave nan, no number of seconds: the usual wait"},
        ),
        ("1", {"remark": "backoff=%s:wait gave str, no number of seconds: the usual wait"}),
        (True, {"remark": "backoff=%s:wait gave bool, no number of seconds: the usual wait"}),
        (SystemExit(3), {"remark": "backoff=%s:wait raised SystemExit: the usual wait"}),
    ],
)
def test_the_function_for_the_wait_may_do_anything(
    given: Any, expected: dict[str, Any] | None
) -> None:
    if expected is not None and "remark" in expected:
        expected = {"remark": expected["remark"] % __name__}
    told = ("name", f"{__name__}:wait", b"")
    assert advice(OSError(given), backoff_fn=told, attempt=3) == expected


def test_a_function_for_the_wait_is_found_and_no_coroutine() -> None:
    coroutine = ("name", f"{__name__}:wait_later", b"")
    report = advice(OSError(), backoff_fn=coroutine)
    assert report is not None
    assert "gave a coroutine" in report["remark"]
    report = advice(OSError(), backoff_fn=("name", f"{__name__}:gone", b""))
    assert report is not None
    assert "raised NotRegistered" in report["remark"]
    report = advice(OSError(), backoff_fn=DECLARED)
    assert report is not None
    assert report["remark"] == "the backoff of builtins:len raised NotRegistered: the usual wait"
    final = advice(KeyError(), retry_on=OS_ERRORS, backoff_fn=coroutine)
    assert final == {"final": True}, "it is not asked where nothing is to be tried again"
