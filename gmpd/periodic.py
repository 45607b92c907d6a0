"""When a function runs by itself: ``@gmpd.cron(...)``, ``@gmpd.every(...)``, and their ticks.

Times are milliseconds since 1970. It knows nothing of the daemon, which alone runs schedules, of
modules that it was told to import. Cron expressions are read by ``cronsim``, imported when the
first one is met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from cronsim import CronSim

_F = TypeVar("_F", bound=Callable[..., Any])

#: Where the schedules of a decorated function are kept.
ATTRIBUTE = "__gmpd_cron__"

#: Each tick is a flush of the disk: more of them than this is a loop, not a schedule (ms).
EVERY_MIN_MS = 100
#: A year: a longer time is a unit mixed up (ms).
EVERY_MAX_MS = 366 * 86_400_000
#: Ticks that are older are not looked for (ms).
HORIZON_MS = 366 * 86_400_000
#: Characters of a schedule's name, and of its expression and time zone.
TEXT_MAX = 256

_SHORT = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CatchUp(StrEnum):
    """Which of the ticks run that passed while no daemon was there to see them."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Overlap(StrEnum):
    """The fate of a tick while the run of an earlier one has not ended."""

    SKIP = "skip"
    QUEUE = "queue"


class Ticks(Protocol):
    """The times of one schedule (ms since 1970)."""

    def after(self, ms: int) -> int | None:
        """The first one after ``ms``; None: there is none within 50 years."""

    def newest(self, after: int, until: int, n: int) -> list[int]:
        """The last ``n`` after ``after`` and not after ``until``, in order."""


class Every:
    """Multiples of a period since 1970, in UTC: the same ones in each process and after each
    start."""

    def __init__(self, period_ms: int) -> None:
        self._period = period_ms

    def after(self, ms: int) -> int:
        """See ``Ticks``."""
        return (ms // self._period + 1) * self._period

    def newest(self, after: int, until: int, n: int) -> list[int]:
        """See ``Ticks``."""
        last = until // self._period
        first = max(last - n, after // self._period) + 1
        return [k * self._period for k in range(first, last + 1)]


class Cron:
    """The moments that a cron expression names in a time zone, each once, in order.

    On the days of a change of clocks it is as Debian's cron: a fixed time that does not exist is
    the first moment after the gap, one that exists twice is its first occurrence. An expression
    whose minute or hour begins with ``*`` follows the time that really passes.
    """

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._expression = expression
        self._zone = zone

    def after(self, ms: int) -> int | None:
        """See ``Ticks``."""
        return next(self._all_after(ms), None)

    def newest(self, after: int, until: int, n: int) -> list[int]:
        """See ``Ticks``."""
        after = max(after, until - HORIZON_MS)
        span = 3_600_000
        while True:  # from closer on, as a year of minutes takes seconds
            start = max(after, until - span)
            found: deque[int] = deque(maxlen=n)
            for tick in self._all_after(start):
                if tick > until:
                    break
                found.append(tick)
            if len(found) == n or start == after:
                return list(found)
            span *= 4

    def _all_after(self, ms: int) -> Iterator[int]:
        last = ms
        for moment in _simulation(self._expression, datetime.fromtimestamp(ms // 1000, self._zone)):
            tick = round(moment.timestamp()) * 1000
            if tick > last:  # two times of a gap are one moment
                yield tick
                last = tick


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a function is to run by itself, and with what arguments.

    Wrong values raise ValueError or TypeError naming the option.
    """

    #: An expression of five fields (six: seconds first), or a short form such as ``@daily``.
    cron: str = ""
    #: Instead of ``cron``: between two ticks (ms).
    every_ms: int = 0
    #: The time zone of ``cron``.
    tz: str = "UTC"
    catch_up: CatchUp = CatchUp.LAST
    overlap: Overlap | None = None
    #: Empty: the function's.
    name: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    #: The argument that gets the time of the tick, as ISO 8601 text in ``tz``.
    tick_as: str | None = None

    def __post_init__(self) -> None:
        _check_text("tz", self.tz)
        if self.cron:
            _check_expression(self.cron, self.tz)
        elif not EVERY_MIN_MS <= self.every_ms <= EVERY_MAX_MS:
            raise ValueError(f"every={self.every_ms / 1000:g} s: must be from 0.1 s to a year")
        self._set("catch_up", _chosen("catch_up", self.catch_up, CatchUp))
        if self.overlap is not None:
            self._set("overlap", _chosen("overlap", self.overlap, Overlap))
        if self.catch_up is CatchUp.ALL and self.overlap is Overlap.SKIP:
            raise ValueError(
                "catch_up='all' runs every tick and overlap='skip' leaves some out: drop one of"
                " them (all implies overlap='queue')"
            )
        if self.name:
            _check_text("name", self.name)
        self._set("args", _positional(self.args))
        self._set("kwargs", _named(self.kwargs or {}))
        if self.tick_as is None:
            return
        if not _is_name(self.tick_as):
            raise ValueError(f"tick_as={self.tick_as!r}: must be the name of an argument")
        if self.kwargs and self.tick_as in self.kwargs:
            raise ValueError(f"tick_as={self.tick_as!r}: kwargs has that argument already")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def when(self) -> str:
        """Its ticks in words; two schedules with the same words have the same ticks."""
        return f"{self.cron} {self.tz}" if self.cron else f"every {self.every_ms / 1000:g} s"

    @property
    def waits(self) -> bool:
        """Whether a tick waits for the run before it to end, and is not left out."""
        return self.overlap is Overlap.QUEUE or self.catch_up is CatchUp.ALL

    def ticks(self) -> Ticks:
        """Its times."""
        return Cron(self.cron, zone_named(self.tz)) if self.cron else Every(self.every_ms)


def cron(
    expression: str,
    /,
    *,
    tz: str | tzinfo = "UTC",
    name: str = "",
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    catch_up: str = "last",
    overlap: str | None = None,
    tick_as: str | None = None,
) -> Callable[[_F], _F]:
    """Have a daemon that imports this module run the function at the times of a cron expression.

    ``expression``: minute, hour, day, month, weekday (six fields: seconds first), or ``@hourly``,
    ``@daily`` and so on; ``tz``: its time zone. Each tick is a durable job with the options of
    ``@gmpd.job``. ``name``: the schedule's; the default is the function's. ``catch_up``: of the
    ticks that passed while no daemon was running, run ``"none"``, the ``"last"``, or ``"all"``
    (the newest 1,000). ``overlap``: a tick whose predecessor still runs is left out (``"skip"``,
    the default) or waits (``"queue"``). ``tick_as``: the argument that gets the time of the tick,
    as text. The function stays what it is. Raises ValueError or TypeError naming what is wrong.
    """
    if not isinstance(expression, str):
        raise TypeError(f"@gmpd.cron takes an expression such as '*/5 * * * *', not {expression!r}")
    schedule = Schedule(
        cron=expression or " ", tz=_zone_name(tz), name=name, args=args, kwargs=kwargs,
        catch_up=_chosen("catch_up", catch_up, CatchUp),
        overlap=None if overlap is None else _chosen("overlap", overlap, Overlap),
        tick_as=tick_as,
    )  # fmt: skip
    return lambda function: _mark(function, schedule)


def every(
    seconds: float | timedelta,
    /,
    *,
    name: str = "",
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    catch_up: str = "last",
    overlap: str | None = None,
    tick_as: str | None = None,
) -> Callable[[_F], _F]:
    """Have a daemon that imports this module run the function at every multiple of a period.

    ``seconds`` (or a timedelta): 0.1 to a year. Multiples count from 1970 in UTC, so
    ``every(3600)`` runs at whole hours. The rest is as for ``cron``.
    """
    schedule = Schedule(
        every_ms=period_ms(seconds), name=name, args=args, kwargs=kwargs,
        catch_up=_chosen("catch_up", catch_up, CatchUp),
        overlap=None if overlap is None else _chosen("overlap", overlap, Overlap),
        tick_as=tick_as,
    )  # fmt: skip
    return lambda function: _mark(function, schedule)


def period_ms(seconds: object) -> int:
    """A period in milliseconds. Raises ValueError or TypeError."""
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"every={seconds!r}: must be seconds, or a timedelta")
    if not EVERY_MIN_MS <= seconds * 1000 <= EVERY_MAX_MS:  # nor is nan
        raise ValueError(f"every={seconds!r}: must be from 0.1 s to a year")
    return round(seconds * 1000)


def schedules_of(marks: Mapping[str, Any]) -> tuple[Schedule, ...]:
    """The schedules among the attributes of a function."""
    found = marks.get(ATTRIBUTE, ())
    return found if isinstance(found, tuple) else ()


def _mark(function: Any, schedule: Schedule) -> Any:
    qualname = getattr(function, "__qualname__", None)
    if not callable(function) or not isinstance(qualname, str):
        raise TypeError(f"a schedule decorates a function, not {function!r}")
    if not qualname.isidentifier():
        raise ValueError(
            f"{qualname} cannot be scheduled, as workers find it by its name: define it at the top"
            " of a module"
        )
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise ValueError(f"{qualname} is a generator, and no caller would take its values")
    there = schedules_of(vars(function))
    if schedule.name in (each.name for each in there):
        raise ValueError(f"name={schedule.name!r}: {qualname} has a schedule of that name already")
    setattr(function, ATTRIBUTE, (*there, schedule))
    return function


def zone_named(name: str) -> tzinfo:
    """A time zone of the IANA database. Raises ValueError."""
    if name == "UTC":  # without a database, too
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: it names a directory of the database
        raise ValueError(
            f"tz={name!r}: no such time zone is known here; write it as 'Europe/Berlin' (a system"
            " without time zones gets them by `pip install tzdata`)"
        ) from None


def _zone_name(tz: object) -> str:
    if isinstance(tz, str):
        return tz
    key = "UTC" if tz is UTC else getattr(tz, "key", None)
    if isinstance(tz, tzinfo) and isinstance(key, str):
        return key
    raise TypeError(f"tz={tz!r}: must be the name of a time zone, or a zoneinfo.ZoneInfo")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: must be a text")
    if not 0 < len(value) <= TEXT_MAX or not value.isprintable():
        raise ValueError(f"{name}={value!r}: must be 1 to {TEXT_MAX} printable characters")


def _positional(args: object) -> tuple[Any, ...]:
    if not isinstance(args, Sequence) or isinstance(args, str | bytes):
        raise TypeError(f"args={args!r}: must be a list or tuple of arguments")
    return tuple(args)


def _named(kwargs: object) -> dict[str, Any]:
    if not isinstance(kwargs, Mapping) or not all(map(_is_name, kwargs)):
        raise TypeError(f"kwargs={kwargs!r}: must be a dict of arguments by name")
    return dict(kwargs)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


_E = TypeVar("_E", bound=StrEnum)


def _chosen(name: str, value: object, kind: type[_E]) -> _E:
    try:
        return kind(str(value))
    except ValueError:
        known = ", ".join(repr(each.value) for each in kind)
        raise ValueError(f"{name}={value!r}: must be one of {known}") from None


def _check_expression(expression: str, tz: str) -> None:
    from cronsim import CronSimError

    if len(expression) > TEXT_MAX:
        raise ValueError(f"cron={expression[:40]!r}…: more than {TEXT_MAX} characters")
    zone = zone_named(tz)
    try:
        simulation = _simulation(expression, datetime.fromtimestamp(0, zone))
    except CronSimError as error:
        raise ValueError(_fault(expression, str(error))) from None
    if next(simulation, None) is None:
        raise ValueError(f"cron={expression!r}: it names no moment of the next 50 years")


def _fault(expression: str, error: str) -> str:
    """The sentence for an expression that cannot be read."""
    fields = expression.split()
    if fields[-2:-1] and _is_read([*fields[:-2], "*", fields[-1]]):
        return f"cron={expression!r}: it never fires, as its months have no such day"
    if expression.lstrip().startswith("@"):
        return f"cron={expression!r}: the short forms are {', '.join(_SHORT)}"
    return (
        f"cron={expression!r}: {error[:1].lower()}{error[1:]}; five fields are needed: minute,"
        " hour, day, month, weekday (six: seconds first)"
    )


def _is_read(fields: list[str]) -> bool:
    from cronsim import CronSimError

    try:
        _simulation(" ".join(fields), datetime.fromtimestamp(0, UTC))
    except CronSimError:
        return False
    return True


def _simulation(expression: str, start: datetime) -> CronSim:
    from cronsim import CronSim

    return CronSim(_SHORT.get(expression.strip().lower(), expression), start)
