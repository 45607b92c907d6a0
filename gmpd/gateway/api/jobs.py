"""One job by the API: shown, its result and its output; stored, cancelled, tried again.

A submitted job is durable: its id is an answer only once it is on disk, and its end is there for
any reader, whatever becomes of the gateway.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from gmpd.explain import explain, question_of, with_children
from gmpd.gateway.api import shapes
from gmpd.gateway.api.questions import Questions
from gmpd.job_ids import new_job_id
from gmpd.sched.stored import StoredState, Verdict

#: States in which a durable job has a result.
_ENDED = frozenset({"done", "failed", "cancelled", "expired", "quarantined", "unknown"})
_WAITING = frozenset({"queued", "leased"})


class Absent(Exception):
    """There is no such thing."""


class Conflict(Exception):
    """It cannot be done as things are."""


class Wrong(Exception):
    """``field`` of a request is wrong, as only the coordinator could tell."""

    def __init__(self, text: str, field: str, hint: str = "") -> None:
        super().__init__(text)
        self.field = field
        self.hint = hint


# -- where a page begins -------------------------------------------------------------------------


def place_of(params: shapes.OfJobs) -> tuple[str, str]:
    """Among which jobs a page begins, and where."""
    if params.after is None:
        return ("durable" if params.kind == "durable" else "volatile"), ""
    return ("durable" if params.after[0] == "d" else "volatile"), params.after[1:]


def next_place(kind: str, at: Any) -> str | None:
    """The counterpart."""
    return None if at is None else f"{kind}{at}"


# -- shown ---------------------------------------------------------------------------------------


def readable(found: dict[str, Any]) -> shapes.JobInfo:
    """A job as the coordinator tells it."""
    state = StoredState(found["state"]).name.lower()
    if state in _WAITING:
        state = "running" if found["runs_since_ms"] else "queued"
    told = found.get("progress")
    return shapes.JobInfo(
        id=found["id"].hex(),
        function=found["function"],
        state=state,  # type: ignore[arg-type]
        durable=not found.get("volatile", False),
        client=found["client"],
        priority=found["priority"],
        attempt=found["attempt"],
        deaths=found["deaths"],
        created=found["created_ms"] / 1000,
        began=_seconds(found["runs_since_ms"]),
        ended=_seconds(found["ended_ms"]),
        run_at=found["run_at_ms"] / 1000,
        expires=_seconds(found["expires_ms"]),
        p=found.get("p"),
        pid=found.get("pid"),
        unique=found["unique"],
        text=found["text"],
        progress=None
        if told is None
        else shapes.Progress(done=float(told[0]), total=told[1], note=told[2]),
    )


def _seconds(ms: int | None) -> float | None:
    return ms / 1000 if ms else None


async def _found(ask: Questions, id_: str) -> dict[str, Any]:
    found: dict[str, Any] | None
    (found,) = await ask.ask_jobs("find", bytes.fromhex(id_))
    if found is None:
        raise Absent(f"the daemon knows no job {id_}")
    return found


async def _find(ask: Questions, id_: str) -> shapes.JobInfo:
    return readable(await _found(ask, id_))


async def show(ask: Questions, params: shapes.OfJob) -> shapes.JobStory:
    """A job, why it is in its state, each of its attempts, and the tracebacks of those that
    failed."""
    found = await _found(ask, params.id)
    story = await ask.ask_jobs("story", bytes.fromhex(params.id))
    job = readable(found)
    facts = {"limit": found.get("waits_for"), "stage": found.get("stage")}
    told_of = structs.asdict(job) | facts
    if (question := question_of(told_of)) is not None:
        told_of = with_children(told_of, await ask.call("g", **question))
    told = explain(told_of, time.time())
    return shapes.JobStory(
        job=job,
        why=why(told.reason.value, told.text, told.hint, told.facts),
        story=[_attempt(row) for row in story],
    )


def why(code: str, text: str, hint: str, facts: Mapping[str, Any]) -> shapes.Why:
    """An explanation as the API gives it."""
    sentence = f"{text[:1].upper()}{text[1:]}."
    return shapes.Why(code=code, sentence=sentence, hint=hint, facts=dict(facts))


def _attempt(row: dict[str, Any]) -> shapes.AttemptInfo:
    error = _error(row["error"])
    return shapes.AttemptInfo(
        n=row["n"],
        outcome=row["outcome"],
        text=row["text"],
        began=_seconds(row["began_ms"]),
        ended=_seconds(row["ended_ms"]),
        ran_s=row["ran_us"] / 1e6,
        p=row["p"],
        pid=row["pid"],
        strikes=row["strikes"],
        traceback="" if error is None else error.traceback,
    )


def _error(data: bytes) -> shapes.ErrorInfo | None:
    """The texts of an error; nothing is unpickled."""
    if not data:
        return None
    from gmpd.codec import error_summary  # 10 MB that only the reader of an error needs

    told = error_summary(data)
    return shapes.ErrorInfo(type=told.type, message=told.message, traceback=told.traceback)


async def result(ask: Questions, params: shapes.OfJob) -> shapes.JobResult:
    """How a durable job ended, and its value or its error; ``ended`` is false before that."""
    job = await _find(ask, params.id)
    if not job.durable:
        raise Conflict(
            f"job {params.id} is volatile: its result goes to the client that submitted it"
        )
    if job.state not in _ENDED:
        return shapes.JobResult(id=params.id, ended=False)
    told = await ask.ask_jobs("result", bytes.fromhex(params.id))
    if told is False:
        raise Absent(f"the daemon knows no job {params.id} any more")
    is_error = told["state"] != StoredState.DONE
    return shapes.JobResult(
        id=params.id,
        ended=True,
        outcome=told["outcome"],
        value=None if is_error else _value(told),
        error=_error(told["value"]) if is_error else None,
        ran_s=told["ran_us"] / 1e6,
        attempt=told["attempt"],
        text=told["text"],
    )


def _value(told: dict[str, Any]) -> Any:
    from gmpd.codec import to_plain
    from gmpd.errors import Unserializable

    try:
        return _json(to_plain(told["value"]))
    except Unserializable as error:
        raise Conflict(str(error)) from None


def _json(value: Any) -> Any:
    """A plain value as JSON has it: bytes as ``{"base64": ...}``."""
    match value:
        case dict():
            return {str(key): _json(item) for key, item in value.items()}
        case list() | tuple():
            return [_json(item) for item in value]
        case bytes():
            return {"base64": b64encode(value).decode()}
        case _:
            return value


async def log(ask: Questions, params: shapes.OfLog) -> shapes.JobLog:
    """The output of an attempt of a job: of the present or last one, unless ``attempt`` names
    another. Empty if that has none."""
    told = await ask.ask_jobs("log", bytes.fromhex(params.id), n=params.attempt)
    if told is None and params.attempt is None:
        await _found(ask, params.id)
        return shapes.JobLog(attempt=0, text="", left_out=0, runs=False)
    if told is None:
        raise Absent(f"the daemon keeps no output of such an attempt of job {params.id}")
    data = bytes(told["data"])
    return shapes.JobLog(
        attempt=told["n"],
        text=data.decode("utf-8", "replace"),
        left_out=max(0, told["end"] - len(data)),
        runs=told["runs"],
    )


# -- changed -------------------------------------------------------------------------------------


async def submit(ask: Questions, params: shapes.OfSubmit, body: shapes.NewJob) -> shapes.Accepted:
    """Store a call of a registered function as a durable job; its id, once it is on disk."""
    from gmpd import protocol, spans
    from gmpd.codec import FunctionRef, carrying, encode_call
    from gmpd.errors import Unserializable

    told = await ask.look("registered")
    declared = next((each for each in told["functions"] if each["name"] == body.function), None)
    if declared is None:
        raise Wrong(
            f"{body.function[:100]} is not registered",
            "$.function",
            "GET /api/v1/registered lists what is; `gmpd serve --import MODULE` registers more",
        )
    try:
        blob = encode_call(body.function, tuple(body.args), body.kwargs, plain=True)
    except Unserializable as error:
        raise Wrong(str(error), "$.args") from None
    if header := spans.given(structs.asdict(params)):
        blob = carrying(header, blob)
    given = {
        name: value
        for name in ("retries", "timeout", "priority", "delay", "unique")
        if (value := getattr(body.options, name)) is not None
    }
    options = {**(declared["options"] or {}), **given, "durable": True, "plain": True}
    options.setdefault("capture", True)
    protocol.options(options)
    id_ = new_job_id()
    answer = await ask.store(
        FunctionRef("name", body.function), id_, blob, options, _stored(declared, body.options)
    )
    held = Verdict(answer["verdicts"][0]) is Verdict.HELD
    return shapes.Accepted(id=bytes(answer["ids"][0]).hex(), new=not held)


def _stored(declared: dict[str, Any], options: shapes.CallOptions) -> dict[str, Any]:
    """The fields of ``protocol.Enqueue`` that are for the store."""
    expires = declared["expires"] if options.expires is None else options.expires
    keep = declared["keep"] if options.keep is None else options.keep
    now_ms = time.time_ns() // 1_000_000
    return {
        "run_at": None,
        "expires": None if expires is None else now_ms + int(expires * 1000),
        "keep": int(keep * 1000),
        "once": declared["once"],
    }


async def cancel(ask: Questions, params: shapes.OfJob, body: shapes.CancelJob) -> shapes.Changed:
    """Cancel a job: at once if it has not begun, else its worker is asked."""
    await _find(ask, params.id)
    id_ = bytes.fromhex(params.id)
    told = await ask.ask_jobs("force" if body.force else "cancel", id_)
    changed = id_ in {*map(bytes, told["cancelled"]), *map(bytes, told["asked"])}
    return shapes.Changed(id=params.id, changed=changed, why="" if changed else "it has ended")


async def retry(ask: Questions, params: shapes.OfJob, _body: shapes.Nothing) -> shapes.Changed:
    """Run a job that failed again, from its first attempt."""
    await _find(ask, params.id)
    id_ = bytes.fromhex(params.id)
    changed = id_ in set(map(bytes, await ask.ask_jobs("retry", id_)))
    return shapes.Changed(
        id=params.id, changed=changed, why="" if changed else "it is done, or runs"
    )
