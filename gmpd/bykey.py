"""Values of the job options that name a key: ``limit=Limit(...)``, ``unique=Unique(...)``.

``job`` checks the other options; the policy behind a limit is ``sched.gates``.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from datetime import timedelta
from typing import Any

#: Characters of a key: keys are shown in tables, and kept with every job.
KEY_MAX = 256
#: Jobs at once, or starts per interval: beyond this a limit limits nothing.
LIMIT_MAX = 1_000_000
#: The interval of a limit (seconds): a millisecond to a year.
INTERVAL_MIN = 0.001
INTERVAL_MAX = 366 * 86400.0


def check_key(name: str, key: object) -> None:
    """Raises TypeError or ValueError that names the option."""
    if not isinstance(key, str):
        raise TypeError(f"{name}={key!r}: a key must be a text")
    if not 0 < len(key) <= KEY_MAX or not key.isprintable():
        raise ValueError(f"{name}={key!a:.80}: a key must be 1 to {KEY_MAX} printable characters")


#: A job whose ``unique`` key another one has does one of these; see ``Unique``.
POLICIES = ("return", "replace", "raise")


@dataclasses.dataclass(frozen=True, slots=True)
class Unique:
    """A key that one job has at a time, and what another job with it does meanwhile.

    ``policy``: ``"return"``, it gets the outcome of the one that has the key (``unique="key"`` is
    the same); ``"raise"``, it is refused with ``errors.UniqueHeld``, which names that job;
    ``"replace"``, the other one is cancelled if it has not begun, and otherwise has to end first.
    Durable jobs have keys of their own, and one that runs is asked to end. Raises TypeError or
    ValueError that names what is wrong.
    """

    key: str
    policy: str = "return"

    def __post_init__(self) -> None:
        check_key("unique", self.key)
        if self.policy not in POLICIES:
            raise ValueError(
                f"unique: policy={self.policy!r}: must be one of {', '.join(POLICIES)}"
            )

    @classmethod
    def from_text(cls, text: str) -> Unique:
        """``KEY``, or ``KEY:POLICY``. Raises ValueError."""
        key, colon, policy = text.rpartition(":")
        return cls(key, policy) if colon and policy in POLICIES else cls(text)


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """How many jobs of one key run at once, and how many start per interval.

    ``key``: a text; all jobs with the same key share the limit, of every client and function, be
    they durable or not. ``at_once``: jobs at a time. ``per``: a pair ``(n, seconds)``; at
    most ``n`` attempts start within any such interval. At least one of the two is given. When jobs
    of one key have other numbers, the newest count for all of them.

    Raises TypeError or ValueError that names what is wrong.
    """

    key: str
    at_once: int | None = None
    per: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        check_key("limit", self.key)
        if self.at_once is None and self.per is None:
            raise ValueError(
                f"limit={self.key!r} limits nothing: give at_once=, or per=(n, seconds)"
            )
        if self.at_once is not None:
            object.__setattr__(self, "at_once", _number("limit: at_once", self.at_once))
        if self.per is not None:
            object.__setattr__(self, "per", _per(self.per))

    def to_wire(self) -> tuple[str, int, int, float]:
        """Key, jobs at once, starts, seconds; 0: without such a limit."""
        n, seconds = self.per or (0, 0.0)
        return self.key, self.at_once or 0, n, seconds

    @classmethod
    def from_text(cls, text: str) -> Limit:
        """``KEY:3``: three at once; ``KEY:100/60s``: 100 starts in 60 seconds; ``KEY:3,100/60s``:
        both. Raises ValueError."""
        key, _, numbers = text.rpartition(":")
        at_once, per = None, None
        try:
            for number in numbers.split(","):
                n, slash, seconds = number.partition("/")
                if slash and per is None:
                    per = int(n), _seconds_of(seconds)
                elif not slash and at_once is None:
                    at_once = int(n)
                else:
                    raise ValueError("twice the same")
        except ValueError:
            raise ValueError(
                f"limit={text!r}: write KEY:N for N at once, KEY:N/SECONDSs for N starts per"
                " interval, or KEY:N,N/SECONDSs"
            ) from None
        return cls(key, at_once, per)


def _seconds_of(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :]
    if unit and unit not in units:
        raise ValueError(unit)
    return float(digits or 1) * units.get(unit, 1.0)


def _number(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: must be a whole number") from None
    if not 1 <= number <= LIMIT_MAX:
        raise ValueError(f"{name}={number}: must be from 1 to {LIMIT_MAX}")
    return number


def _per(per: Any) -> tuple[int, float]:
    try:
        n, seconds = per
    except (TypeError, ValueError):
        raise TypeError(f"limit: per={per!r}: must be a pair (n, seconds)") from None
    number = _number("limit: per", n)
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"limit: per={per!r}: its interval must be seconds, or a timedelta")
    if not (math.isfinite(seconds) and INTERVAL_MIN <= seconds <= INTERVAL_MAX):
        raise ValueError(f"limit: per={per!r}: its interval must be {INTERVAL_MIN:g} s to a year")
    return number, float(seconds)
