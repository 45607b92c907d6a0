"""Spans of attempts whose clients sent a trace context with them. Counterpart: ``gmpd.spans``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from gmpd.codec import carried
from gmpd.daemon.leased import Leased
from gmpd.protocol import Options
from gmpd.runtime.log_records import worker_p
from gmpd.runtime.loop import Loop
from gmpd.spans import Attempted


class Carrying(Protocol):
    """An attempt whose call has a header."""

    payload: bytes
    options: Options | None
    leased: Leased | None
    spans: Attempted | None
    token: int
    child: bool
    may_be_home: bool

    @property
    def fn_name(self) -> str: ...


def open_spans(
    attempt: Carrying,
    loop: Loop,
    resolve: Callable[[], object],
) -> None:
    """Take the header off an attempt's call, and begin its spans in the current context.

    Its function is resolved before: the module may set OpenTelemetry up. Raises as that does.
    """
    header, attempt.payload = carried(attempt.payload)
    try:
        if not attempt.child:
            if not attempt.may_be_home:
                resolve = partial(loop.on_main_thread, resolve)
            resolve()
    finally:
        id_, number = b"", 1
        if attempt.leased is not None:
            id_, number = attempt.leased.identity(attempt.token)
        ids: dict[str, int | str] = {
            "gmpd.job.id": id_.hex(),
            "messaging.message.id": id_.hex(),
            "gmpd.attempt": number,
            "gmpd.p": worker_p(),
        }
        attempt.spans = Attempted(header, attempt.fn_name, ids, child=attempt.child)
        attempt.spans.enter()
