"""Durable jobs as a client sees them: what is sent to have one stored, its handle, its end.

A durable job outlives its client, so nothing here holds one: a handle is an id and a way to ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from gmpd import codec
from gmpd.client.calls import encode, insist, packed_options
from gmpd.client.futures import JobFuture, decoded
from gmpd.codec import Blob, FunctionRef
from gmpd.errors import GmpdError, UniqueHeld
from gmpd.explain import Explanation, explain, question_of, with_children
from gmpd.job import DEFAULTS, JobOptions, options_of
from gmpd.job_ids import new_job_id, parse_job_id
from gmpd.protocol import Outcome
from gmpd.sched.stored import StoredState, Verdict
from gmpd.submit.batch import Options
from gmpd.submit.events import JobDone, JobProgress
from gmpd.timeouts import checked

#: Of the id that a daemon does not know.
UNKNOWN = (
    "the daemon knows no job {}: it was removed, its keep-time is over, or the daemon has another"
    " store (daemon.state_dir) than the one that took it"
)


class Storable(NamedTuple):
    """A call, ready to be stored."""

    id: bytes
    ref: FunctionRef
    options: Options | None
    blob: Blob
    #: The fields of protocol.Enqueue that are for the store.
    stored: dict[str, Any]


class StoredOptions:
    """Job options of durable jobs, as they travel: worked out once for calls that are alike."""

    def __init__(self, declared: JobOptions, overrides: dict[str, Any] | None) -> None:
        self._of = declared, overrides
        self.options = declared.merged(**{**(overrides or {}), "durable": True})
        declares = "backoff" not in (overrides or {})
        #: The options for the wire, and the parts that a function among them needs.
        self.wire, self.needs = packed_options(self.options, declared=declares)
        self._fields = None if self.options.expires is not None else stored_fields(self.options)

    def are_of(self, declared: JobOptions, overrides: dict[str, Any] | None) -> bool:
        """Whether they are those of a call. A view never changes its options."""
        return self._of[0] is declared and self._of[1] is overrides

    def fields(self) -> dict[str, Any]:
        """See ``stored_fields``."""
        return self._fields or stored_fields(self.options)


def prepare_storable(
    fn: Callable[..., Any],
    overrides: dict[str, Any] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    header: bytes | None = None,
) -> Storable:
    """A call as it goes into the store. Raises Unserializable, ValueError for a wrong option."""
    global _last
    declared, known = options_of(fn), _last
    if not known.are_of(declared, overrides):
        known = _last = StoredOptions(declared, overrides)
    ref, blob = insist(partial(encode, fn, known.options.plain, args, kwargs, header))
    if known.needs:
        ref = ref.needing(known.needs)
    return Storable(new_job_id(), ref, known.wire, blob, known.fields())


def storable(
    fn: Callable[..., Any], overrides: dict[str, Any] | None, ref: FunctionRef, blob: Blob
) -> Storable:
    """A call that is ready for the wire, with what the store needs to know."""
    known = StoredOptions(options_of(fn), overrides)
    return Storable(new_job_id(), ref, known.wire, blob, known.fields())


def stored_fields(options: JobOptions) -> dict[str, Any]:
    """The fields of protocol.Enqueue that ``options`` give."""
    now_ms = time.time_ns() // 1_000_000
    return {
        "run_at": None if options.at is None else _wall_ms(options.at),
        "expires": None if options.expires is None else now_ms + int(options.expires * 1000),
        "keep": int(options.keep * 1000),
        "once": options.once,
    }


def _wall_ms(at: datetime) -> int:
    return max(0, int(at.timestamp() * 1000))


_last = StoredOptions(DEFAULTS, None)


def accepted(value: Any, id_: bytes, options: Options | None, row: int = 0) -> bytes:
    """The id that counts: the job's own, or of the one that holds its ``unique`` key.

    Raises GmpdError when another job has this id, UniqueHeld when one has its key and that is what
    its ``unique`` asks for.
    """
    verdict = Verdict(value["verdicts"][row])
    if verdict is Verdict.CONFLICT:
        raise GmpdError(f"job {id_.hex()} exists with another content")
    counts = bytes(value["ids"][row])
    if verdict is Verdict.HELD and options is not None and options.get("on_held") == "raise":
        raise UniqueHeld(
            f"job {counts.hex()} has the unique key {options['unique']!r} and has not ended",
            counts.hex(),
        )
    return counts


class Attempt(NamedTuple):
    """One attempt of a job: see ``StoredJob.story``. ``began``, ``ended``: seconds since 1970; None
    if it was not seen to begin, or has not ended. ``strikes``: workers that the job had ended by
    then."""

    n: int
    outcome: str
    text: str
    ended: float | None
    ran_s: float
    p: int | None
    pid: int | None
    #: Of the exception that it raised; empty if it raised none.
    traceback: str
    began: float | None = None
    strikes: int = 0


class _Handle:
    """A job, by its id: from any client of its daemon; a durable one also after a restart of
    either.

    Every method asks the daemon. Raises LookupError when it does not know the job: it never did, or
    a durable job's ``keep`` is over, or a volatile job has ended. The result of a volatile job is
    in its own future only.
    """

    def __init__(
        self, job_id: bytes, ask: Callable[..., Any], call: Callable[..., Any] | None = None
    ) -> None:
        self._id = job_id
        self._ask = ask
        self._call = call

    def __repr__(self) -> str:
        return f"<gmpd.{type(self).__name__} {self.id}>"

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self._id.hex()

    def _about(self, value: Any) -> dict[str, Any]:
        (found,) = value
        return readable(self._known(found))

    def _known(self, found: Any) -> Any:
        if found is None or found is False:
            raise LookupError(UNKNOWN.format(self.id))
        return found

    def _arguments(self, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if value is None:
            raise LookupError(
                f"the arguments of job {self.id} are not kept: the job is done, or volatile, or "
                + UNKNOWN.format(self.id)
            )
        return codec.decode_call(value["payload"], value["buffers"])

    def _cancelled(self, value: Any) -> bool:
        return self._id in value["cancelled"] or self._id in value["asked"]


class StoredJob(_Handle):
    __doc__ = _Handle.__doc__

    def info(self) -> dict[str, Any]:
        """The daemon's record of the job, without its arguments and its result, as plain data."""
        return self._about(self._ask("find", [self._id], None))

    @property
    def state(self) -> str:
        """ "queued", "running", "blocked", "done", "failed", "cancelled", "expired", "quarantined"
        or "unknown"."""
        state: str = self.info()["state"]
        return state

    @property
    def progress(self) -> JobProgress | None:
        """How far it is, as it told by ``gmpd.progress``; None if it did not, or does not run."""
        progress: JobProgress | None = self.info()["progress"]
        return progress

    @property
    def limit(self) -> dict[str, Any] | None:
        """The limit for which it waits, as plain data: its ``key``, how many of it may run and do
        (``at_once``, ``inside``), how many may start in ``per_s`` and did (``starts``,
        ``started``), and how many jobs in memory wait. None: it waits for none."""
        limit: dict[str, Any] | None = self.info()["limit"]
        return limit

    def explain(self) -> Explanation:
        """Why it waits, or how it ended: a sentence with facts, a reason, and a hint."""
        info = self.info()
        if self._call is not None and (question := question_of(info)) is not None:
            with suppress(GmpdError):  # an older daemon, or one that is going
                info = with_children(info, self._call("g", **question))
        return explain(info, time.time())

    def result(self, timeout: float | None = None) -> Any:
        """Its value, when it has ended; its exception is raised. Raises TimeoutError."""
        value, error = self._end(timeout)
        if error is not None:
            raise error
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Its exception, or the one that tells why it has no value; None when it has one. Raises
        TimeoutError."""
        return self._end(timeout)[1]

    def _end(self, timeout: float | None) -> tuple[Any, BaseException | None]:
        told = self._known(self._ask("result", [self._id], checked(timeout)))
        return decoded(ended(told), lambda: self.id, "")

    def cancel(self, *, force: bool = False) -> bool:
        """Cancel it: at once if it has not begun, else the worker is asked. False: it had ended.

        ``force``: a function that does not stop ends with its worker, which is replaced.
        """
        return self._cancelled(self._ask("force" if force else "cancel", [self._id], None))

    def retry(self) -> bool:
        """Run it again from its first attempt, after it failed; False: it is not over, or done."""
        return self._id in self._ask("retry", [self._id], None)

    def remove(self) -> bool:
        """Forget it and its result; False: it has not ended."""
        return self._id in self._ask("remove", [self._id], None)

    def logs(self, attempt: int | None = None) -> str:
        """The output of an attempt, as far as it is kept; None: of the one that runs, or the last.
        Empty if it is not captured, or has printed nothing."""
        return log_text(self._known(self._ask("log", [self._id], None, n=attempt)))

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Its positional and keyword arguments, as long as it may run; a job that is done has none
        any more (LookupError)."""
        return self._arguments(self._ask("call", [self._id], None))

    def story(self) -> list[Attempt]:
        """Its attempts in order: where, when, how and why each has ended. The last one may run."""
        return [attempt(row) for row in self._ask("story", [self._id], None)]


class AsyncStoredJob(_Handle):
    __doc__ = _Handle.__doc__

    async def info(self) -> dict[str, Any]:
        """The daemon's record of the job, without its arguments and its result, as plain data."""
        return self._about(await self._ask("find", [self._id], None))

    async def state(self) -> str:
        """As ``StoredJob.state``."""
        state: str = (await self.info())["state"]
        return state

    async def progress(self) -> JobProgress | None:
        """As ``StoredJob.progress``."""
        progress: JobProgress | None = (await self.info())["progress"]
        return progress

    async def limit(self) -> dict[str, Any] | None:
        """As ``StoredJob.limit``."""
        limit: dict[str, Any] | None = (await self.info())["limit"]
        return limit

    async def explain(self) -> Explanation:
        """As ``StoredJob.explain``."""
        info = await self.info()
        if self._call is not None and (question := question_of(info)) is not None:
            with suppress(GmpdError):
                info = with_children(info, await self._call("g", **question))
        return explain(info, time.time())

    async def result(self, timeout: float | None = None) -> Any:
        """Its value, when it has ended; its exception is raised. Raises TimeoutError."""
        value, error = await self._end(timeout)
        if error is not None:
            raise error
        return value

    async def exception(self, timeout: float | None = None) -> BaseException | None:
        """Its exception, or the one that tells why it has no value; None when it has one. Raises
        TimeoutError."""
        return (await self._end(timeout))[1]

    async def _end(self, timeout: float | None) -> tuple[Any, BaseException | None]:
        told = self._known(await self._ask("result", [self._id], checked(timeout)))
        # A value may take long to unpickle, and the loop has others to serve.
        return await asyncio.to_thread(decoded, ended(told), lambda: self.id, "")

    async def cancel(self, *, force: bool = False) -> bool:
        """As ``StoredJob.cancel``."""
        return self._cancelled(await self._ask("force" if force else "cancel", [self._id], None))

    async def retry(self) -> bool:
        """As ``StoredJob.retry``."""
        return self._id in await self._ask("retry", [self._id], None)

    async def remove(self) -> bool:
        """As ``StoredJob.remove``."""
        return self._id in await self._ask("remove", [self._id], None)

    async def logs(self, attempt: int | None = None) -> str:
        """As ``StoredJob.logs``."""
        return log_text(self._known(await self._ask("log", [self._id], None, n=attempt)))

    async def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """As ``StoredJob.arguments``."""
        return self._arguments(await self._ask("call", [self._id], None))

    async def story(self) -> list[Attempt]:
        """As ``StoredJob.story``."""
        return [attempt(row) for row in await self._ask("story", [self._id], None)]


def log_text(told: dict[str, Any], after: int = 0) -> str:
    """Output as the daemon tells it, from byte ``after`` on; it says how much is not kept."""
    data: bytes = told["data"]
    lacking = told["end"] - len(data) - after
    gap = f"[{lacking:,} bytes left out]\n" if lacking > 0 else ""
    return gap + data.decode("utf-8", "replace")


def attempt(row: dict[str, Any]) -> Attempt:
    """One attempt as the daemon tells it."""
    return Attempt(
        row["n"], row["outcome"], row["text"], (row["ended_ms"] or 0) / 1e3 or None,
        row["ran_us"] / 1e6, row["p"], row["pid"], _traceback(row["error"]),
        (row["began_ms"] or 0) / 1e3 or None, row["strikes"],
    )  # fmt: skip


def _traceback(error: bytes) -> str:
    return codec.error_summary(error).traceback if error else ""


def readable(found: dict[str, Any]) -> dict[str, Any]:
    """A job as ``Find`` and ``ListJobs`` tell it, for people and programs: ids in hex, names for
    states, seconds for times."""
    state = StoredState(found["state"]).name.lower()
    if state in ("queued", "leased"):
        state = "running" if found["runs_since_ms"] else "queued"
    times = {
        name.removesuffix("_ms"): None if found[name] is None else found[name] / 1000
        for name in ("created_ms", "run_at_ms", "ended_ms", "expires_ms", "keep_ms")
    }
    told = found.get("progress")
    live = {
        "durable": not found.get("volatile", False),
        "began": (found["runs_since_ms"] or 0) / 1000 or None,
        "p": found.get("p"),
        "pid": found.get("pid"),
        "progress": None if told is None else JobProgress(*told),
        "limit": found.get("waits_for"),
        "stage": found.get("stage"),
    }
    kept = ("number", "function", "client", "priority", "attempt", "deaths", "unique", "text")
    return {"id": found["id"].hex(), "state": state, **{k: found[k] for k in kept}, **times, **live}


def ended(told: dict[str, Any]) -> JobDone:
    """The end of a job as the daemon tells it, as that of any other job."""
    outcome = _OUTCOMES.get(told["outcome"], Outcome.LOST)
    details: dict[str, Any] = {"text": told["text"], "attempt": told["attempt"]}
    if told["state"] == StoredState.QUARANTINED:
        details["poisoned"] = True
    elif told["state"] == StoredState.EXPIRED:
        details["expired"] = True
    return JobDone(outcome, told["value"], tuple(told["buffers"]), told["ran_us"], details)


_OUTCOMES = {each.name.lower(): each for each in Outcome} | {"expired": Outcome.TIMEOUT}


class DurableFuture(JobFuture):
    """The future of a durable job: cancelling it cancels the job, dropping it does not.

    When the daemon goes, the client looks for the next one (``Client(reconnect=)``) and asks that.
    """

    _handle: StoredJob

    @property
    def job_id(self) -> str:
        """The job's id, in hex: ``client.job(job_id)`` has its result later, too."""
        return self._handle.id

    @property
    def progress(self) -> JobProgress | None:
        """As ``JobFuture.progress``, but it asks the daemon; None once the job has ended."""
        if self.done():
            return None
        try:
            return self._handle.progress
        except LookupError:
            return None

    def cancel(self, *, force: bool = False) -> bool:
        """Cancel the job; False when it has ended. ``force``: see ``JobFuture.cancel``."""
        if self.done():
            return self.cancelled()
        return self._handle.cancel(force=force)

    def answered(self, ok: bool, value: Any) -> None:
        """The reply to the question for its result."""
        if ok and value is not False:
            self.ended(ended(value))
            return
        self.ended(failed(ok, value, self._handle._id))


def failed(ok: bool, value: Any, id_: bytes) -> JobDone:
    """The end of a future whose job's result the daemon did not give."""
    error: Exception
    if ok:
        error = GmpdError(UNKNOWN.format(id_.hex()))
    elif isinstance(value, Exception):
        error = value
    else:
        error = GmpdError(f"job {id_.hex()}: {value}")
    return JobDone(Outcome.LOST, b"", (), 0, {"error": error})


def ids_of(jobs: Sequence[str]) -> list[bytes]:
    """Ids as programs and people have them. Raises ValueError naming the first that is none."""
    return [parse_job_id(each) for each in jobs]
