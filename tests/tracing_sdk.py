"""OpenTelemetry's SDK in the process of the tests, for some of them: it is as it was afterwards."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.util._once import Once


@contextmanager
def set_up() -> Iterator[Any]:
    """``tests.jobs_spans``, whose provider is this process's."""
    _forget()
    jobs = importlib.import_module("tests.jobs_spans")
    _forget()
    trace.set_tracer_provider(jobs.provider)
    jobs.exporter.clear()
    try:
        yield jobs
    finally:
        _forget()


def _forget() -> None:
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = Once()
