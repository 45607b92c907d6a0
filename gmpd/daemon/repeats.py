"""Log records of one kind, of which a fault makes thousands: the first ones are written, the rest
counted, and one line says how many there were.

Alike are records of one place in the code with one template. Not for two threads at once; reads no
clock.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

#: Records of a kind that are written in one interval, and its seconds.
REPEATS_MAX = 100
EVERY_S = 10.0
#: Kinds that are told apart in one interval; those beyond count as one.
KINDS_MAX = 1024

#: Characters of a template that a summary quotes.
_SHOWN = 200


class _Kind:
    __slots__ = ("count", "level", "name", "template")

    def __init__(self, record: logging.LogRecord) -> None:
        self.count = 0
        self.level, self.name = record.levelno, record.name
        self.template = record.msg if isinstance(record.msg, str) else ""


class Summary(NamedTuple):
    """Records that were not written."""

    rows: int
    record: logging.LogRecord


class Repeats:
    """Times are seconds on any clock."""

    def __init__(self, most: int = REPEATS_MAX, every_s: float = EVERY_S) -> None:
        self._most = most
        self._every_s = every_s
        self._began = 0.0
        self._kinds: dict[object, _Kind] = {}
        #: Records that were not written, since the beginning.
        self.suppressed = 0
        self._unsaid = False

    def admit(self, record: logging.LogRecord, now: float) -> bool:
        """Whether to write it. To be called after ``take``."""
        if not self._kinds:
            self._began = now
        key = (record.pathname, record.lineno, record.msg if isinstance(record.msg, str) else "")
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= KINDS_MAX:
                key = ("", 0, "")
            kind = self._kinds.setdefault(key, _Kind(record))
        kind.count += 1
        if kind.count <= self._most:
            return True
        self.suppressed += 1
        self._unsaid = True
        return False

    def due_s(self, now: float) -> float | None:
        """In how many seconds ``take`` will have something to say; None: nothing so far."""
        return max(0.0, self._began + self._every_s - now) if self._unsaid else None

    def take(self, now: float, *, early: bool = False) -> list[Summary]:
        """One record for each kind of which some were not written, if the interval is over or
        ``early``; then another one begins."""
        if not self._kinds or (now < self._began + self._every_s and not early):
            return []
        kinds, self._kinds, self._unsaid = self._kinds, {}, False
        for_s = min(self._every_s, max(1.0, now - self._began))
        return [
            Summary(kind.count - self._most, _summary(kind, kind.count - self._most, for_s))
            for kind in kinds.values()
            if kind.count > self._most
        ]


def _summary(kind: _Kind, count: int, for_s: float) -> logging.LogRecord:
    quoted = kind.template[:_SHOWN]
    text = f"… and {count:,} more like it in {for_s:.0f} s: {quoted}"
    return logging.makeLogRecord(
        {"name": kind.name, "levelno": kind.level, "levelname": logging.getLevelName(kind.level),
         "msg": text, "suppressed": count}
    )  # fmt: skip
