"""Spans of OpenTelemetry for jobs; no other module imports that library.

A program that has imported OpenTelemetry gets a span for each submit, and its trace context travels
with the job (``codec.carried``); the worker makes spans of the wait and of each attempt from it. A
program that has not imported it pays one look into ``sys.modules``, and its jobs carry nothing.

Spans are for watching: whatever fails in here, in an exporter or sampler of the user's, the job is
submitted and run all the same.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger("gmpd.spans")

T = TypeVar("T")

#: Where its program has imported OpenTelemetry.
LOADED = "opentelemetry.trace"
#: Bytes of a packed context. Beyond it baggage is left behind, and then all of it.
CARRIER_MAX = 8192
#: The standard's switch for one instrumentation: a list of names, of which ours is this one.
DISABLED = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
NAME = "gmpd"
#: Fields of the standard's own propagator, which are kept where there is no room for others.
_W3C = ("traceparent", "tracestate")

#: A valid ``traceparent``: https://www.w3.org/TR/trace-context/#traceparent-header; a later version
#: may have further fields.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?"
)
#: The trace of the environment, for commands: they make no spans themselves.
_around: dict[str, str] = {}

_is_warned = False
#: The last provider, and the tracer that it gave.
_latest: tuple[Any, Tracer] | None = None


def submitted(function: str, **attributes: bool) -> bytes:
    """Make the span of a submit, and give the context that travels with its job; empty if there is
    no trace. To be called only where ``LOADED`` is in ``sys.modules``."""
    try:
        return b"" if _is_idle() else _submitted(function, attributes)
    except Exception:  # noqa: BLE001 - see above
        return b""


def _is_idle() -> bool:
    """Whether there is nothing to pass on: many libraries import OpenTelemetry, and most programs
    neither make spans nor are part of a trace. It takes a third of the time of ``_submitted``."""
    trace, context = sys.modules[LOADED], sys.modules["opentelemetry.context"]
    provider = trace.get_tracer_provider()
    return provider.__class__ is trace.ProxyTracerProvider and not context.get_current()


def _submitted(function: str, attributes: dict[str, bool]) -> bytes:
    from opentelemetry import propagate, trace

    if is_disabled():
        return b""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):  # the program makes no spans: it passes on
        return _packed(_injected(propagate, None))
    span = _tracer(trace).start_span(
        f"submit {function}",
        kind=trace.SpanKind.PRODUCER,
        attributes={**_messaging(function, "submit", "send"), **attributes},
    )
    header = _packed(_injected(propagate, trace.set_span_in_context(span)))
    span.end()
    return header


def given(carrier: Mapping[str, str]) -> bytes:
    """The context that travels with a job of a trace that another program has begun. ``carrier``
    has ``traceparent``, and may have ``tracestate``. Empty without a valid one: the standard asks
    to ignore others."""
    if not _TRACEPARENT.fullmatch(carrier.get("traceparent", "")):
        return b""
    own = {name: carrier[name] for name in _W3C if carrier.get(name, "").isascii()}
    return _packed({name: text for name, text in own.items() if text})


def around(environment: Mapping[str, str]) -> None:
    """Have the jobs that a command submits belong to the trace that the environment names, as
    commands of a traced script do: ``TRACEPARENT``, ``TRACESTATE``. Not those of ``Client.submit``
    without options: its way is too short for one more look."""
    _around.clear()
    _around.update((name, environment.get(name.upper(), "")) for name in _W3C)


def of_submit(function: str) -> bytes:
    """As ``submitted``, in any program."""
    if LOADED in sys.modules:
        return submitted(function)
    return given(_around) if _around else b""


def stamped(header: bytes) -> bytes:
    """The same for a job that is submitted now."""
    data: bytes = msgpack.packb([time.time_ns(), msgpack.unpackb(header)[1]])
    return data


def of_child(context: Context) -> bytes:
    """The trace context of a child that leaves its worker, without a span of its own."""
    if LOADED not in sys.modules:
        return b""
    try:
        from opentelemetry import propagate

        return _packed(context.run(_injected, propagate, None), submitted_ns=0)
    except Exception:  # noqa: BLE001 - see above
        return b""


def is_disabled() -> bool:
    """Whether the environment switches these spans off."""
    listed = os.environ.get(DISABLED, "")
    return bool(listed) and NAME in (each.strip() for each in listed.split(","))


def _injected(propagate: Any, context: TraceContext | None) -> dict[str, str]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context=context)
    return carrier


def _packed(carrier: dict[str, str], submitted_ns: int | None = None) -> bytes:
    if not carrier:
        return b""
    at = time.time_ns() if submitted_ns is None else submitted_ns
    data: bytes = msgpack.packb([at, carrier])
    if len(data) > CARRIER_MAX:
        own = {name: carrier[name] for name in _W3C if name in carrier}
        data = msgpack.packb([at, own])
    return data if len(data) <= CARRIER_MAX and carrier else b""


def _tracer(trace: Any) -> Tracer:
    """The tracer of the present provider: a program may set it after its first submit."""
    global _latest
    provider, latest = trace.get_tracer_provider(), _latest
    if latest is None or latest[0] is not provider:
        from gmpd import __version__

        latest = _latest = provider, trace.get_tracer(NAME, __version__)
    return latest[1]


def _messaging(function: str, operation: str, kind: str) -> dict[str, Any]:
    """As the conventions for messaging systems have it: the function is where a job is sent to."""
    return {
        "messaging.system": NAME,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": function,
        "gmpd.function": function,
    }


class Attempted:
    """The trace context in which one attempt runs, and its span. ``ids``: attributes of it."""

    def __init__(self, header: bytes, function: str, ids: dict[str, int | str], *, child: bool):
        self._context: Any = None
        self._span: Span | None = None
        self._error: BaseException | None = None
        try:
            self._open(header, function, ids, child)
        except ImportError:
            _warn_once()
        except Exception:  # noqa: BLE001 - see above
            self._context = None

    def _open(self, header: bytes, function: str, ids: dict[str, int | str], child: bool) -> None:
        submitted_ns, carrier = msgpack.unpackb(header)
        from opentelemetry import propagate, trace

        if is_disabled():
            return
        context = propagate.extract(carrier)
        if child:  # a child has no span of its own, at home or away
            self._context = context
            return
        now = time.time_ns()
        tracer = _tracer(trace)
        named = {**_messaging(function, "run", "process"), **ids}
        if submitted_ns and ids.get("gmpd.attempt") == 1:
            wait = {name: value for name, value in named.items() if "operation" not in name}
            tracer.start_span(
                f"wait {function}", context, attributes=wait, start_time=min(submitted_ns, now)
            ).end(now)
        self._span = tracer.start_span(
            f"run {function}", context, trace.SpanKind.CONSUMER, attributes=named, start_time=now,
            record_exception=False, set_status_on_exception=False,
        )  # fmt: skip
        self._context = trace.set_span_in_context(self._span, context)

    def enter(self) -> None:
        """From here on the caller's context belongs to it. It is not left again: each job has a
        context of its own."""
        if self._context is not None:
            from opentelemetry.context import attach

            attach(self._context)

    def inside(self, part: Callable[[], T]) -> T:
        """Run a part of the job that has another context."""
        self.enter()
        return part()

    def failed(self, error: BaseException) -> None:
        """The job's code raised it."""
        self._error = error

    def end(self, outcome: str, ended_ago_ns: int) -> None:
        """Its frame has ended, a while ago."""
        span, self._span = self._span, None
        error, self._error = self._error, None
        if span is not None:
            try:
                _end(span, outcome, error, time.time_ns() - ended_ago_ns)
            except Exception:  # noqa: BLE001, S110 - see above
                pass


def _warn_once() -> None:
    """A job came with a trace context, and the library is not installed here."""
    global _is_warned
    if not _is_warned:
        _is_warned = True
        log.warning(
            "jobs come with a trace context of OpenTelemetry, and this worker has no"
            " opentelemetry-api: their runs make no spans. Install gmpd[otel] where the daemon runs"
        )


def _end(span: Span, outcome: str, error: BaseException | None, at_ns: int) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("gmpd.outcome", outcome)
    if error is not None and outcome != "ok":
        span.set_attribute("error.type", type(error).__qualname__)
        try:
            span.record_exception(error, timestamp=at_ns)
        except Exception:  # noqa: BLE001 - it has no text, or its code raises
            span.add_event("exception", {"exception.type": type(error).__qualname__}, at_ns)
    if outcome in ("error", "timeout"):
        text = outcome if error is None or outcome == "timeout" else type(error).__qualname__
        span.set_status(Status(StatusCode.ERROR, text))
    span.end(at_ns)


def flush(timeout_s: float) -> None:
    """The process ends: have the program's exporters send what they hold, within a bound."""
    if LOADED not in sys.modules:
        return
    try:
        from opentelemetry import trace

        force: Any = getattr(trace.get_tracer_provider(), "force_flush", None)
        if force is not None:
            force(int(timeout_s * 1000))
    except Exception:  # noqa: BLE001, S110 - see above
        pass
