"""Spans of jobs: of submits in a program, of attempts in a worker; without processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import msgpack
import pytest
from opentelemetry import context, trace

from gmpd import spans
from gmpd.codec import Blob, carried, carrying, decode_call, encode_call, tag_of
from gmpd.codec.carried import HEADER_MAX
from gmpd.codec.values import _NeedyBlob
from gmpd.errors import ProtocolError
from tests import tracing_sdk


@pytest.fixture
def jobs() -> Iterator[Any]:
    with tracing_sdk.set_up() as module:
        yield module


def submitted(jobs: Any, function: str = "m:f") -> bytes:
    with jobs.tracer.start_as_current_span("program"):
        return spans.submitted(function)


def attempted(header: bytes, *, child: bool = False, attempt: int = 1) -> spans.Attempted:
    return spans.Attempted(header, "m:f", {"gmpd.attempt": attempt}, child=child)


def names(jobs: Any) -> list[str]:
    return [row["name"] for row in jobs.finished()]


@pytest.mark.parametrize("plain", [False, True])
def test_a_call_carries_a_header(plain: bool) -> None:
    blob = encode_call("f", (1, "x"), {"y": None}, plain=plain)
    assert tag_of(blob.data) == blob.data[:1]
    for size in (0, 1, 255, HEADER_MAX):
        with_header = carrying(b"h" * size, blob)
        assert tag_of(with_header.data) == blob.data[:1], "seen through the header"
        header, call = carried(with_header.data)
        assert header == b"h" * size
        assert decode_call(call) == ((1, "x"), {"y": None})


def test_a_header_keeps_the_frames_and_needs_of_a_call() -> None:
    assert carrying(b"h", Blob(b"x", (b"frame",))).buffers == (b"frame",)
    needy = _NeedyBlob(b"x")
    needy.parts = ((("p", 1), b"part"),)
    assert carrying(b"h", needy).needs == needy.parts


@pytest.mark.parametrize("data", [b"\x94", b"\x94\x00", b"\x94\x00\x02h", b"\x94\x00\x02hh"])
def test_a_header_that_ends_early_is_refused(data: bytes) -> None:
    assert tag_of(data) == b""
    with pytest.raises(ProtocolError, match="header"):
        carried(data)


def test_an_attempt_follows_its_submit(jobs: Any) -> None:
    run = attempted(submitted(jobs))
    copy_context().run(run.enter)
    assert not trace.get_current_span().get_span_context().is_valid, "only in the job's context"
    run.end("ok", 0)
    run.end("ok", 0)  # once
    rows = {row["name"]: row for row in jobs.finished()}
    assert set(rows) == {"program", "submit m:f", "wait m:f", "run m:f"}
    assert rows["submit m:f"]["parent"] == rows["program"]["id"]
    assert rows["run m:f"]["parent"] == rows["wait m:f"]["parent"] == rows["submit m:f"]["id"]
    assert rows["run m:f"]["attributes"]["gmpd.outcome"] == "ok"


def test_further_attempts_do_not_wait_since_the_submit(jobs: Any) -> None:
    attempted(submitted(jobs), attempt=2).end("ok", 0)
    assert names(jobs) == ["submit m:f", "program", "run m:f"]


def test_a_child_makes_no_span_and_has_the_current_one(jobs: Any) -> None:
    with jobs.tracer.start_as_current_span("run") as span:
        header = spans.of_child(copy_context())
    child = attempted(header, child=True)

    def current() -> int:
        return trace.get_current_span().get_span_context().span_id

    assert copy_context().run(child.inside, current) == span.get_span_context().span_id
    child.end("ok", 0)
    assert names(jobs) == ["run"]
    assert spans.of_child(copy_context()) == b"", "outside of a span"


def test_a_program_without_spans_passes_on_what_it_was_given(jobs: Any) -> None:
    tracing_sdk._forget()
    assert spans.submitted("m:f") == b""
    remote = trace.SpanContext(1 << 70, 7, is_remote=True)
    given = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    token = context.attach(given)
    try:
        _, carrier = msgpack.unpackb(spans.submitted("m:f"))
    finally:
        context.detach(token)
    assert carrier["traceparent"].split("-")[2] == f"{7:016x}"
    assert names(jobs) == []


def test_nothing_is_worked_out_where_the_library_is_imported_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spans, "_submitted", pytest.fail)
    assert spans.submitted("m:f") == b""


def test_a_stamp_is_of_its_own_job(jobs: Any) -> None:
    header = submitted(jobs)
    (first, carrier), (later, same) = map(msgpack.unpackb, (header, spans.stamped(header)))
    assert carrier == same
    assert later >= first


def test_too_much_baggage_is_left_behind_and_the_trace_is_not(jobs: Any) -> None:
    own = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    kept = msgpack.unpackb(spans._packed({**own, "baggage": "x" * 8000}))[1]
    assert set(kept) == {"traceparent", "baggage"}
    assert msgpack.unpackb(spans._packed({**own, "baggage": "x" * 9000}))[1] == own
    assert spans._packed({"other": "x" * 9000}) != b"x" * 9000
    assert spans._packed({**own, "tracestate": "x" * 9000}) == b""


@pytest.mark.parametrize(
    "header",
    [b"", b"\xc1", b"x" * 50, msgpack.packb(7), msgpack.packb([1, 2]), msgpack.packb(["x", {}]),
     msgpack.packb([1, {1: [2]}]), msgpack.packb([1 << 63, {"traceparent": "junk"}]),
     msgpack.packb([1, {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"}])],
)  # fmt: skip
def test_a_header_that_is_none_fails_no_job(jobs: Any, header: bytes) -> None:
    run = attempted(header)
    assert copy_context().run(run.inside, lambda: 7) == 7
    run.failed(ValueError())
    run.end("error", 0)


def test_without_the_library_jobs_run_without_spans_and_one_line_says_so(
    jobs: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    header = submitted(jobs)
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(spans, "_is_warned", False)
    for _ in range(2):
        run = attempted(header)
        assert run.inside(lambda: 7) == 7
        run.end("ok", 0)
    spans.flush(0.1)
    (line,) = caplog.messages
    assert "gmpd[otel]" in line


def test_a_failing_processor_fails_neither_submit_nor_attempt(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of the user")

    header = submitted(jobs)
    run = attempted(header)
    monkeypatch.setattr(jobs.exporter, "export", fail)
    monkeypatch.setattr(jobs.provider, "force_flush", fail)
    run.end("ok", 0)
    monkeypatch.setattr(jobs.provider, "get_tracer", fail)
    monkeypatch.setattr(spans, "_latest", None)
    assert spans.submitted("m:f") == b""
    assert attempted(header).inside(lambda: 7) == 7
    spans.flush(0.1)


@pytest.mark.parametrize(("listed", "off"), [("", False), ("a, gmpd ,b", True), ("gmpdx", False)])
def test_the_standard_switch_is_obeyed(
    jobs: Any, monkeypatch: pytest.MonkeyPatch, listed: str, off: bool
) -> None:
    monkeypatch.setenv(spans.DISABLED, listed)
    assert (submitted(jobs) == b"") is off
