"""The tables ``[cron.NAME]``: schedules that the operator gives to functions.

Each is a function, its times and arguments as ``@gmpd.cron`` and ``@gmpd.every`` take them, and
options as ``@gmpd.job`` takes them. Durations are texts with a unit, as everywhere in these files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gmpd.config.keys import hint
from gmpd.config.units import parse_duration
from gmpd.job import JobOptions
from gmpd.periodic import Schedule, period_ms

#: The section whose tables they are.
SECTION = "cron"

_OF_SCHEDULES = frozenset({"cron", "tz", "args", "kwargs", "catch_up", "overlap", "tick_as"})
#: When the job runs follows from its schedule, and that it is stored. Exceptions and limits are
#: objects of Python: ``@gmpd.job`` declares them.
_OPTIONS = frozenset(field.name for field in fields(JobOptions)) - {
    "at", "delay", "durable", "retry_on", "limit",
}  # fmt: skip
_DURATIONS = frozenset({"timeout", "kill_after", "expires", "keep", "backoff"})
_KNOWN = frozenset({"function", "every"}) | _OF_SCHEDULES | _OPTIONS

EXAMPLE = """\
# Periodic jobs: a table for each, [cron.NAME]. They are durable jobs, and need no client.
# Its other keys are options of jobs (retries, timeout, priority, keep, once and so on), in place of
# those that @gmpd.job declares, if the function's module is among daemon.imports.
# [cron.report]
# function = "shop.jobs:report"    # module:function, imported by workers
# cron = "30 6 * * 1-5"            # minute hour day month weekday; or every = "30s"
# tz = "Europe/Berlin"             # of cron
# args = ["daily"]                 # and kwargs = { name = "value" }
# catch_up = "last"                # ticks that no daemon saw: none | last | all (1000 at most)
# overlap = "skip"                 # while the last run has not ended: skip | queue
# tick_as = "when"                 # the argument that gets the tick's time, as ISO 8601 text
# timeout = "10m"
"""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One table. ``given``: its keys as they stand there; ``where``: in which file and line."""

    function: str
    schedule: Schedule
    options: JobOptions
    given: Mapping[str, Any]
    where: str


def read_schedule(name: str, table: Mapping[str, Any], where: str) -> Scheduled:
    """One table, checked. Raises ValueError or TypeError naming the key."""
    for key in table:
        if key not in _KNOWN:
            raise ValueError(f"unknown key {key!r}{hint(key, _KNOWN)}")
    given = dict(table)
    function = given.pop("function", None)
    if not isinstance(function, str) or not _is_function(function):
        raise ValueError(f"function = {function!r}: write it as 'module:function'")
    every = given.pop("every", None)
    if (every is None) == ("cron" not in given):
        raise ValueError("it needs one of cron and every")
    times = {key: given.pop(key) for key in _OF_SCHEDULES & given.keys()}
    if every is not None:
        if "tz" in times:
            raise ValueError("tz is of cron; every counts from 1970 in UTC")
        times["every_ms"] = period_ms(_duration("every", every))
    elif not isinstance(times["cron"], str) or not times["cron"].strip():
        raise TypeError(f"cron={times['cron']!r}: must be an expression such as '*/5 * * * *'")
    for key in _DURATIONS & given.keys():
        given[key] = _duration(key, given[key])
    schedule = Schedule(name=name, **times)
    return Scheduled(function, schedule, JobOptions(**given), dict(table), where)


def rendered(name: str, given: Mapping[str, Any]) -> str:
    """A table as TOML."""
    key = name if name.replace("-", "_").isidentifier() and name.isascii() else json.dumps(name)
    return "\n".join([f"[cron.{key}]", *(f"{k} = {_literal(v)}" for k, v in given.items())])


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_literal(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value, ensure_ascii=False)
    return str(value)  # TOML's own dates and times


def _is_function(text: str) -> bool:
    module, colon, name = text.partition(":")
    return bool(colon) and all(
        part.isidentifier() for part in (*module.split("."), *name.split("."))
    )


def _duration(key: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 - the type is right, and the unit is missing
            f'{key} = {value} has no unit; write "{value}s" or "{value}ms"'
        )
    if not isinstance(value, str):
        raise TypeError(f"{key} = {value!r}: must be a duration such as '30s'")
    return parse_duration(value)
