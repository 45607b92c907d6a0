"""The last failed attempts with their tracebacks, of volatile jobs too; number and bytes bounded.

A function that fails by the thousand does not drive out the one failure of another: of each only
the last few are kept. Texts are the user's: they are cut, and made harmless for terminals, when
they are asked for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from gmpd.codec import error_summary
from gmpd.codec.error_texts import clean
from gmpd.daemon.logs import visible
from gmpd.errors import ConfigError, ProtocolError
from gmpd.sched.records import Failure

#: Failures that are kept, of all functions and of each; and their bytes.
KEPT_MAX: Final = 500
OF_FUNCTION_MAX: Final = 50
BYTES_MAX: Final = 8 << 20
#: Failures of an answer, unless asked for others.
SHOWN: Final = 20
#: Bytes of a message and of a traceback that are shown, and of all texts of an answer.
MESSAGE_MAX: Final = 2000
TRACEBACK_MAX: Final = 16 << 10
ANSWER_MAX: Final = 4 << 20
_NAME_MAX: Final = 200


class _Kept(NamedTuple):
    failure: Failure
    at: float
    nbytes: int


class KeptFailures:
    """The newest are kept."""

    def __init__(self) -> None:
        #: By number, the oldest first; and the numbers of each function.
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._of: dict[str, deque[int]] = {}
        self._nbytes = 0
        #: Of all that there ever were.
        self._count = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<KeptFailures: {len(self)} of {self._count}, {self._nbytes} bytes>"

    def add(self, failures: Iterable[Failure], at: float) -> None:
        """Attempts failed by now (unix seconds)."""
        for failure in failures:
            self._count += 1
            nbytes = len(failure.payload) + len(failure.text) + len(failure.fn)
            if nbytes > BYTES_MAX:
                failure = failure._replace(payload=b"", text="its error is too large to be kept")
                nbytes = len(failure.text) + len(failure.fn)
            mine = self._of.setdefault(failure.fn, deque())
            if len(mine) >= OF_FUNCTION_MAX:
                self._drop(mine[0])
                mine = self._of.setdefault(failure.fn, deque())
            mine.append(self._count)
            self._kept[self._count] = _Kept(failure, at, nbytes)
            self._nbytes += nbytes
            while len(self._kept) > KEPT_MAX or self._nbytes > BYTES_MAX:
                self._drop(next(iter(self._kept)))

    def _drop(self, number: int) -> None:
        old = self._kept.pop(number)
        self._nbytes -= old.nbytes
        mine = self._of[old.failure.fn]
        mine.popleft()  # the oldest of its function goes first, too
        if not mine:
            del self._of[old.failure.fn]

    def answer(self, params: dict[str, Any]) -> dict[str, Any]:
        """The question ``failures``: the newest first, of a function if it is named. Raises
        ConfigError."""
        n, wanted = params.get("n", SHOWN), params.get("function") or ""
        if type(n) is not int or not 1 <= n <= KEPT_MAX:
            raise ConfigError(f"n must be 1 to {KEPT_MAX}, not {n!r}")
        rows: list[dict[str, Any]] = []
        room = ANSWER_MAX
        for number, kept in reversed(self._kept.items()):
            if wanted and _name(kept.failure.fn) != wanted:
                continue
            row = _row(number, kept)
            room -= sum(len(each) for each in row.values() if type(each) is str)
            if len(rows) == n or (rows and room < 0):
                break
            rows.append(row)
        return {"failures": rows, "kept": len(self._kept), "failed": self._count}


def _name(text: str) -> str:
    return visible(text if len(text) <= _NAME_MAX else f"…{text[1 - _NAME_MAX :]}")


def _text(text: str, limit: int) -> str:
    return visible(clean(text, limit))


def _row(number: int, kept: _Kept) -> dict[str, Any]:
    failure = kept.failure
    kind = message = traceback = ""
    if failure.payload:
        try:
            kind, message, traceback = error_summary(failure.payload)
        except ProtocolError as error:
            message = str(error)
    return {
        "number": number,
        "at": kept.at,
        "id": failure.id,
        "function": _name(failure.fn),
        "client": visible(failure.client),
        "p": failure.p,
        "outcome": failure.outcome.name.lower(),
        "attempt": failure.attempt,
        "again": failure.again,
        "type": _text(kind, MESSAGE_MAX),
        "message": _text(message, MESSAGE_MAX),
        "traceback": _text(traceback, TRACEBACK_MAX),
        "text": _text(failure.text, MESSAGE_MAX),
    }
