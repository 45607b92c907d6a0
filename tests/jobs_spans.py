"""Jobs with spans; this module sets OpenTelemetry's SDK up in the workers that import it, as a
program's module of jobs does."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import gmpd

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("tests.jobs_spans")

#: A span as values that travel: its parent is "" if it has none.
Row = dict[str, Any]


def rows(spans: tuple[ReadableSpan, ...]) -> list[Row]:
    found = []
    for span in spans:
        assert span.context is not None
        found.append(
            {
                "name": span.name,
                "kind": span.kind.name,
                "trace": f"{span.context.trace_id:032x}",
                "id": f"{span.context.span_id:016x}",
                "parent": "" if span.parent is None else f"{span.parent.span_id:016x}",
                "began": span.start_time,
                "ended": span.end_time,
                "attributes": dict(span.attributes or {}),
                "status": span.status.status_code.name,
                "events": [(each.name, dict(each.attributes or {})) for each in span.events],
            }
        )
    return found


def finished() -> list[Row]:
    """The spans that have ended in this worker so far."""
    return rows(exporter.get_finished_spans())


def inner(name: str) -> str:
    """A span of the job's own; gives the id of the one around it."""
    around = trace.get_current_span().get_span_context()
    with tracer.start_as_current_span(name):
        return f"{around.span_id:016x}"


def plain(name: str) -> str:
    """A plain function."""
    return inner(name)


async def coroutine(name: str) -> str:
    """A coroutine, after a wait."""
    await asyncio.sleep(0)
    return inner(name)


def own_child(name: str) -> str:
    """A child of a plain function."""
    result: str = gmpd.go(plain, name).result()
    return result


async def children(name: str) -> str:
    """A child and a thread of a coroutine."""
    result: str = await gmpd.go(coroutine, name)
    assert await asyncio.to_thread(plain, name) == result
    return result


def copied(name: str) -> str:
    """A thread in the context of a plain function."""
    found: list[str] = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(lambda: found.append(plain(name))))
    thread.start()
    thread.join()
    return found[0]


def wide(n: int) -> tuple[str, list[tuple[str, int]]]:
    """Children, some of which go to another worker: its span, and the span and process of each."""
    gs = [gmpd.go(slow) for _ in range(n)]
    return current(), [g.result() for g in gs]


def slow() -> tuple[str, int]:
    """Keeps its P for a while."""
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    return current(), os.getpid()


class ToFile(InMemorySpanExporter):
    """It writes the names of spans into a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(self._path, "a") as file:
            file.writelines(f"{span.name}\n" for span in spans)
        return SpanExportResult.SUCCESS


def batched(path: str) -> str:
    """Spans that end from here on are kept, to be exported together an hour later."""
    provider.add_span_processor(BatchSpanProcessor(ToFile(path), schedule_delay_millis=3_600_000))
    return inner("inner")


def stream(name: str) -> Iterator[str]:
    """A generator."""
    yield inner(name)
    yield inner(name)


async def astream(name: str) -> AsyncIterator[str]:
    """The same as a coroutine."""
    yield inner(name)


def fails(path: str) -> str:
    """The first attempt fails."""
    with open(path, "a+") as file:
        file.write("x")
        file.seek(0)
        if len(file.read()) == 1:
            raise ValueError("the first")
    return inner("second")


class Odd(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def fails_oddly() -> None:
    """An exception that cannot be shown."""
    raise Odd


def sleeps(seconds: float) -> None:
    """It blocks."""
    time.sleep(seconds)


async def waits() -> None:
    """Until it is cancelled."""
    await asyncio.sleep(600)


def carried() -> dict[str, object]:
    """The baggage that came with it."""
    return dict(baggage.get_all())


def current() -> str:
    """The id of the current span."""
    return f"{trace.get_current_span().get_span_context().span_id:016x}"


class Broken(SimpleSpanProcessor):
    """It fails."""

    def on_start(self, *_: object, **__: object) -> None:
        raise RuntimeError("at the start")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("at the end")


def breaks() -> None:
    """From here on this worker's exporter fails."""
    provider.add_span_processor(Broken(exporter))
