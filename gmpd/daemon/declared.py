"""The functions that the daemon's modules declare, as a worker that has imported them finds them.

Only a worker imports user code. It reports what it found with its Hello; ``registry`` has the
coordinator's side.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any

from gmpd import protocol
from gmpd.codec import FunctionRef, encode_call, resolve_function
from gmpd.errors import GmpdError
from gmpd.job import ATTRIBUTE, DEFAULTS, JobOptions
from gmpd.periodic import Schedule, schedules_of


def declared_in(imports: Iterable[str]) -> list[protocol.Declaration]:
    """The functions that ``@gmpd.job``, ``@gmpd.cron`` or ``@gmpd.every`` mark in these modules,
    and in those below them that they have imported. A function counts in the module that defines
    it. Raises ValueError for two schedules of one name, GmpdError for arguments of one that are
    not plain."""
    found = [_declaration(name, marks) for name, marks in _marked(frozenset(imports))]
    owners: dict[str, str] = {}
    for function in found:
        for schedule in function.schedules:
            other = owners.setdefault(schedule.name, function.name)
            if other != function.name:
                raise ValueError(
                    f"two schedules have the name {schedule.name!r}, of {other} and"
                    f" {function.name}: give one of them another name="
                )
    return found


def missing_among(functions: Iterable[str]) -> dict[str, str]:
    """The functions (``module:function``) that cannot be imported here, with the reason."""
    missing = {}
    for name in functions:
        try:
            resolve_function(FunctionRef("name", name))
        except GmpdError as error:
            missing[name] = str(error)
    return missing


def _marked(imports: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    below = tuple(f"{name}." for name in imports)
    for module_name, module in sorted(sys.modules.items()):
        if module_name not in imports and not module_name.startswith(below):
            continue
        for attribute, value in list(_attributes(module).items()):
            marks = dict(_attributes(value))
            is_marked = isinstance(marks.get(ATTRIBUTE), JobOptions) or schedules_of(marks)
            if is_marked and _address(value) == (module_name, attribute):
                yield f"{module_name}:{attribute}", marks


def _address(value: object) -> tuple[object, object]:
    return getattr(value, "__module__", None), getattr(value, "__qualname__", None)


def _declaration(name: str, marks: dict[str, Any]) -> protocol.Declaration:
    declared = marks.get(ATTRIBUTE)
    options: JobOptions = declared if isinstance(declared, JobOptions) else DEFAULTS
    try:
        options.to_wire()
    except (ValueError, TypeError):  # retry_on names no exception: its submitters are told so
        options = options.merged(retry_on=None)
    return protocol.Declaration(
        name=name,
        is_job=declared is not None,
        schedules=[_schedule(name, each) for each in schedules_of(marks)],
        options=protocol.options(options.to_wire()),
        expires=options.expires,
        keep=options.keep,
        once=options.once,
    )


def _schedule(function: str, schedule: Schedule) -> protocol.DeclaredSchedule:
    call = encode_call(function, tuple(schedule.args), schedule.kwargs or {}, plain=True)
    return protocol.DeclaredSchedule(
        name=schedule.name or function,
        cron=schedule.cron,
        every_ms=schedule.every_ms,
        tz=schedule.tz,
        catch_up=schedule.catch_up.value,
        overlap=None if schedule.overlap is None else schedule.overlap.value,
        call=call.data,
        tick_as=schedule.tick_as,
    )


def _attributes(value: object) -> dict[str, Any] | MappingProxyType[str, Any]:
    """Its ``__dict__``. No code of its class runs: a lazy object stays as it is."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict | MappingProxyType) else {}
