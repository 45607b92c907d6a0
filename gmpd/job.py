"""The options that the author of a job declares: ``@gmpd.job(...)``.

Knows nothing of clients and workers; its counterpart is ``Client.options(...)``, which overrides
what is declared here for one submission.
"""

from __future__ import annotations

import builtins
import dataclasses
import difflib
import functools
import math
import operator
import pkgutil
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar, overload

from gmpd.bykey import Limit, Unique, check_key

_F = TypeVar("_F", bound=Callable[..., Any])

#: Where the options of a decorated function are kept.
ATTRIBUTE = "__gmpd_job__"

#: More attempts than this is a loop, not a retry.
RETRIES_MAX = 1000
#: Priorities lie in -PRIORITY_MAX..PRIORITY_MAX: each level in use is a queue of its own.
PRIORITY_MAX = 100
#: Seconds; a year, beyond which a delay or limit is a unit mixed up (milliseconds, a timestamp).
SECONDS_MAX = 366 * 86400.0
#: Characters of a name or a unique key: they are shown in tables and kept with every job.
TEXT_MAX = 256
#: Results of durable jobs are kept for a day, unless another time is asked for (seconds).
KEEP_S = 86400.0
#: The largest factor between two waits before further attempts.
FACTOR_MAX = 1000.0
#: Exceptions that ``retry_on`` may name.
RETRY_ON_MAX = 64
#: How a class is named: ``ValueError`` or ``pkg.mod.Error``, also ``mod.fn.<locals>.Error``.
_DOTTED = re.compile(r"[^\W\d]\w*(\.([^\W\d]\w*|<locals>))*")

#: The values of ``retry_on``; names are ``"pkg.mod.Error"``.
RetryOn: TypeAlias = type[BaseException] | str | tuple[type[BaseException] | str, ...]
#: Seconds before the next attempt; gets the number of the attempt, from 1, and what it raised.
BackoffFunction: TypeAlias = Callable[[int, BaseException], float | timedelta | None]


def _check_text(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: must be a text")
    if not 0 < len(value) <= TEXT_MAX or not value.isprintable():
        raise ValueError(f"{name}={value!r}: must be 1 to {TEXT_MAX} printable characters")


def _check_flag(name: str, value: object) -> None:
    if type(value) is not bool and (name, value) != ("capture", None):
        raise TypeError(f"{name}={value!r}: must be True or False")


def _check_moment(at: object) -> None:
    if not isinstance(at, datetime):
        raise TypeError(f"at={at!r}: must be a datetime")
    if at.tzinfo is None:
        raise ValueError(
            f"at={at.isoformat()} has no time zone, so it names a moment only on one machine: use"
            " datetime(..., tzinfo=...), or .astimezone()"
        )


def _integer(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: must be a whole number")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: must be a whole number") from None
    if not low <= number <= high:
        raise ValueError(f"{name}={number}: must be from {low} to {high}")
    return number


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool | str | bytes | bytearray):  # float() would read the digits of these
        raise TypeError(f"{name}={value!r}: must be seconds, or a timedelta")
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}={value!r}: must be seconds, or a timedelta") from None
    if math.isnan(seconds) or not 0 <= seconds <= SECONDS_MAX:
        raise ValueError(f"{name}={value!r}: must be from 0 to {SECONDS_MAX:.0f} seconds (a year)")
    return seconds


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: must be a number")
    if not low <= value <= high:  # nor nan
        raise ValueError(f"{name}={value!r}: must be from {low:g} to {high:g}")
    return float(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before further attempts: ``base`` before the second, then ``factor`` times as
    long each time, up to ``cap`` (300 times the base unless given). Each wait is shortened at
    random by up to the share ``jitter``, so that jobs that failed together come back apart.

    Raises ValueError or TypeError naming what is wrong.
    """

    base: float = 0.1
    cap: float | None = None
    factor: float = 2.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        base = _seconds("backoff: base", self.base)
        cap = (
            min(SECONDS_MAX, 300 * base) if self.cap is None else _seconds("backoff: cap", self.cap)
        )
        if cap < base:
            raise ValueError(f"backoff: cap={cap:g} is less than base={base:g}")
        factor = _number("backoff: factor", self.factor, 1, FACTOR_MAX)
        jitter = _number("backoff: jitter", self.jitter, 0, 1)
        for name, value in zip(_PARTS, (base, cap, factor, jitter), strict=True):
            object.__setattr__(self, name, value)

    def to_wire(self) -> tuple[float, float, float, float]:
        """The four numbers, in the order of the constructor."""
        assert self.cap is not None
        return self.base, self.cap, self.factor, self.jitter


#: Stands for a function for the wait that the worker finds among the options of the job's function.
DECLARED = ("declared", "", b"")

_PARTS = ("base", "cap", "factor", "jitter")


def _backoff(value: Any) -> Backoff | BackoffFunction:
    if isinstance(value, Backoff):
        return value
    if isinstance(value, type) or not callable(value):
        return Backoff(_seconds("backoff", value))
    return value  # type: ignore[no-any-return]


def _retry_on(value: Any) -> RetryOn:
    """Checks all that can be checked before the modules of names are imported."""
    each = value if isinstance(value, tuple | list | set | frozenset) else (value,)
    if not 0 < len(each) <= RETRY_ON_MAX:
        raise ValueError(f"retry_on={value!r}: must name 1 to {RETRY_ON_MAX} exceptions")
    for one in each:
        if isinstance(one, str):
            if not _DOTTED.fullmatch(one) or len(one) > TEXT_MAX:
                raise ValueError(f"retry_on={one!r}: is not the name of a class, as pkg.mod.Error")
        elif not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(
                f"retry_on={one!r}: must be an exception type, its name (pkg.mod.Error), or a tuple"
                " of those"
            )
    return tuple(each)


def _names_of(retry_on: RetryOn) -> tuple[str, ...]:
    """The classes by their own names, as workers compare them. Raises ValueError."""
    each = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    return tuple(_found(one) if isinstance(one, str) else class_name(one) for one in each)


def class_name(cls: type) -> str:
    """The name by which ``retry_on`` means a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


@functools.lru_cache(maxsize=256)
def _found(name: str) -> str:
    """The own name of the exception that ``name`` finds here. Raises ValueError, TypeError."""
    if "<locals>" in name:
        return name  # no import finds it
    try:
        found = pkgutil.resolve_name(name) if "." in name else getattr(builtins, name)
    except Exception as error:  # noqa: BLE001 - an import runs any code
        raise ValueError(
            f"retry_on={name!r}: there is no such exception here"
            f" ({type(error).__name__}: {error}); write it as pkg.mod.Error"
        ) from None
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise TypeError(f"retry_on={name!r}: is {found!r}, not an exception type")
    return class_name(found)


@dataclasses.dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job is to be run. Wrong values raise ValueError or TypeError naming the option."""

    #: Shown instead of the function's own name.
    name: str | None = None
    #: Further attempts after one that failed or whose worker died.
    retries: int = 0
    #: Seconds before a further attempt: the first wait, a ``Backoff``, or a function that is called
    #: with the number of the failed attempt and its error, in the worker. None: ``Backoff()``.
    backoff: float | timedelta | Backoff | BackoffFunction | None = None
    #: Exceptions after which there is another attempt, subclasses included: a type, a name, or a
    #: tuple. None: all. Time limits count as JobTimeout, dead workers as WorkerLost.
    retry_on: RetryOn | None = None
    #: Seconds that one attempt may run; None: no limit. It ends the wait. A function that does not
    #: stop runs on; its next attempt waits for its end, at most for as long again.
    timeout: float | None = None
    #: Seconds after its begin at which an attempt that has not ended ends with its worker, which is
    #: replaced when other jobs there had a moment to end. None: never. More than ``timeout``.
    kill_after: float | None = None
    #: Higher goes first among the jobs of one client.
    priority: int = 0
    #: Seconds before it may start.
    delay: float = 0.0
    #: While a job with this key is queued or running, another one gets its outcome; ``Unique`` has
    #: other policies.
    unique: str | Unique | None = None
    #: How many jobs of a key run at once, and start per interval.
    limit: Limit | None = None
    #: On disk before submit returns.
    durable: bool = False
    #: Not before this moment, which has a time zone.
    at: datetime | None = None
    #: Seconds after which it is not begun any more.
    expires: float | None = None
    #: Of durable jobs: seconds for which its result is kept.
    keep: float = KEEP_S
    #: Of durable jobs: never a second attempt, whatever happens to the first.
    once: bool = False
    #: A worker process of its own, replaced afterwards.
    isolate: bool = False
    #: Arguments and result are plain data (msgpack) only: never pickled.
    plain: bool = False
    #: Its output and logging are kept with the job, and do not go into the daemon's log. None: as
    #: ``durable``.
    capture: bool | None = None

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        self._check_keys()
        self._set("retries", _integer("retries", self.retries, 0, RETRIES_MAX))
        if self.backoff is not None:
            self._set("backoff", _backoff(self.backoff))
        if self.retry_on is not None:
            self._set("retry_on", _retry_on(self.retry_on))
        self._set("priority", _integer("priority", self.priority, -PRIORITY_MAX, PRIORITY_MAX))
        self._set("delay", _seconds("delay", self.delay))
        self._check_times()
        if self.at is not None:
            _check_moment(self.at)
        if self.expires is not None:
            self._set("expires", _seconds("expires", self.expires))
            if self.expires == 0:
                raise ValueError("expires=0: no job would begin; None means that it may always")
        self._set("keep", _seconds("keep", self.keep))
        for flag in ("durable", "isolate", "plain", "once", "capture"):
            _check_flag(flag, getattr(self, flag))

    def _check_keys(self) -> None:
        if self.unique is not None and not isinstance(self.unique, Unique):
            check_key("unique", self.unique)
        if self.limit is not None and not isinstance(self.limit, Limit):
            raise TypeError(
                f"limit={self.limit!r}: must be a gmpd.Limit, as Limit('key', at_once=3)"
            )

    def _check_times(self) -> None:
        if self.timeout is not None:
            self._set("timeout", _seconds("timeout", self.timeout))
            if self.timeout == 0:
                raise ValueError("timeout=0 would end every attempt at once; None means no limit")
        if self.kill_after is not None:
            self._set("kill_after", _seconds("kill_after", self.kill_after))
            if self.kill_after <= (self.timeout or 0):
                raise ValueError(
                    f"kill_after={self.kill_after:g}: must be more than timeout="
                    f"{self.timeout or 0:g}, as both count from the begin of an attempt"
                )

    def merged(self, **overrides: Any) -> JobOptions:
        """These options with some replaced. Raises TypeError for an unknown one, with a hint."""
        if not overrides:
            return self
        _refuse_unknown(overrides)
        return dataclasses.replace(self, **overrides)

    def for_the_store(self) -> str:
        """The name of an option that differs from its default and that only durable jobs keep."""
        changed = (name for name in ONLY_STORED if getattr(self, name) != _DEFAULT[name])
        return next(changed, "")

    def to_wire(self) -> dict[str, Any] | None:
        """The options that differ from the defaults; None when none does. A function for the wait
        is ``DECLARED``. Raises ValueError, TypeError for a name that finds no exception."""
        if self is DEFAULTS:
            return None
        wire: dict[str, Any] = {}
        for name, default in _ON_WIRE:
            value = getattr(self, name)
            if value == default:
                continue
            if isinstance(value, Unique):
                wire[name] = value.key
                if value.policy != "return":
                    wire["on_held"] = value.policy
            else:
                wire[name] = value.to_wire() if isinstance(value, Limit) else value
        if self.retry_on is not None:
            wire["retry_on"] = _names_of(self.retry_on)
        if isinstance(self.backoff, Backoff):
            wire["backoff"] = self.backoff.to_wire()
        elif self.backoff is not None:
            del wire["backoff"]
            wire["backoff_fn"] = DECLARED
        if self.durable and self.capture is None:
            wire["capture"] = True
        return wire or None

    def times_on_wire(self, now_s: float) -> dict[str, float]:
        """``at`` and ``expires`` of a job that is not stored, as options on the wire. ``now_s``:
        seconds since 1970. Raises ValueError."""
        wire = {} if self.expires is None else {"expires": self.expires}
        if self.at is not None:
            delay = self.at.timestamp() - now_s
            if delay > SECONDS_MAX:
                raise ValueError(f"at={self.at.isoformat()} is more than a year ahead")
            if delay > self.delay:
                wire["delay"] = delay
        return wire

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


_DEFAULTS = tuple((field.name, field.default) for field in dataclasses.fields(JobOptions))
_DEFAULT = dict(_DEFAULTS)
_NAMES = frozenset(name for name, _ in _DEFAULTS)
#: Options of the store, which do not travel with the job; and those that only the store has.
STORED = ("at", "expires", "keep", "once")
ONLY_STORED = ("keep", "once")
_ON_WIRE = tuple(pair for pair in _DEFAULTS if pair[0] not in STORED)

#: The options of a function that declares none.
DEFAULTS = JobOptions()


@overload
def job(fn: _F, /) -> _F: ...
@overload
def job(
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: float | timedelta | Backoff | BackoffFunction | None = None,
    retry_on: RetryOn | None = None,
    timeout: float | timedelta | None = None,
    kill_after: float | timedelta | None = None,
    priority: int = 0,
    delay: float | timedelta = 0.0,
    unique: str | Unique | None = None,
    limit: Limit | None = None,
    durable: bool = False,
    at: datetime | None = None,
    expires: float | timedelta | None = None,
    keep: float | timedelta = KEEP_S,
    once: bool = False,
    isolate: bool = False,
    plain: bool = False,
    capture: bool | None = None,
) -> Callable[[_F], _F]: ...
def job(fn: Any = None, /, **options: Any) -> Any:
    """Declare how a function is to be run as a job; called plainly it stays what it is.

    Times are seconds (or a timedelta). Returns the same function object. Raises TypeError or
    ValueError naming the option that is wrong.
    """
    declared = DEFAULTS.merged(**options)
    if fn is None:
        return lambda function: _declare(function, declared)
    return _declare(fn, declared)


def options_of(fn: object) -> JobOptions:
    """The options that ``@job`` set on ``fn`` (or on a partial's function), else the defaults."""
    declared = getattr(fn, ATTRIBUTE, None)
    if declared is None:
        declared = getattr(getattr(fn, "func", None), ATTRIBUTE, None)
    return declared if isinstance(declared, JobOptions) else DEFAULTS


def _declare(fn: Any, options: JobOptions) -> Any:
    # A classmethod object is not callable itself.
    target = fn.__func__ if isinstance(fn, staticmethod | classmethod) else fn
    if not callable(target):
        raise TypeError(
            f"@job decorates a function, not {fn!r}; options go by name: @job(retries=3)"
        )
    try:
        setattr(target, ATTRIBUTE, options)
    except (AttributeError, TypeError):
        raise TypeError(
            f"@job cannot mark {fn!r}, which takes no attributes: wrap it in a def, "
            "or use client.options(...).submit(...)"
        ) from None
    return fn


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in _NAMES:
            close = difflib.get_close_matches(str(name), _NAMES, n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(_NAMES))}"
            )
            raise TypeError(f"there is no job option {name!r}: {hint}")
