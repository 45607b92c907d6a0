"""Hints after a large ``map``: its items were so small, or its values so large, that most of the
time went into their way.

A hint is a warning of the category ``PerformanceHint``, each code once in a process. It never costs
a result: where warnings are errors, it goes to the log instead.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gmpd.findings import (
    SMALL_JOBS,
    SMALL_S,
    SMALLER_RESULTS,
    Code,
    Finding,
    Level,
    results_cost,
    size_text,
)

log = logging.getLogger("gmpd.hints")

#: The mean of a map's arguments or results from which on they are large.
LARGE_BYTES: Final = 1 << 20
_GMPD: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep

#: Codes that were told, each with the mark of the call that did.
_told: dict[Code | None, object] = {}


class PerformanceHint(UserWarning):
    """A ``map`` took longer than it had to: the text says why, and what would be faster. It begins
    with a code, by which it can be filtered: ``small_jobs``, ``large_results``,
    ``large_arguments``."""


@dataclass(slots=True)
class MapTotals:
    """A ``map`` that has ended. Times are in seconds."""

    name: str
    items: int = 0
    #: The calls, all of them together.
    ran_s: float = 0.0
    #: The map, without the time that its caller took between results; None: not known.
    took_s: float | None = None
    argument_bytes: int = 0
    result_bytes: int = 0
    #: The remedy when the calls were short.
    fix: str = "give each call more to do, as a list of items"


def of(totals: MapTotals) -> Iterator[Finding]:
    """The hints for a ``map``."""
    items, ran_s, name = totals.items, totals.ran_s, totals.name
    is_short = items >= SMALL_JOBS and ran_s / items < SMALL_S
    if is_short and (totals.took_s is None or ran_s < totals.took_s):
        what = f"its {items:,} calls ran {ran_s:.2g} s in all"
        if totals.took_s is not None:
            what += f", and the map took {totals.took_s:.2g} s: a plain loop is faster"
        facts = {"items": items, "ran_s": ran_s}
        yield Finding(name, Level.WARN, what, totals.fix, Code.SMALL_JOBS, facts)
    for kind, nbytes, code, fix in (
        ("results", totals.result_bytes, Code.LARGE_RESULTS, SMALLER_RESULTS),
        ("arguments", totals.argument_bytes, Code.LARGE_ARGUMENTS,
         "pass a path, and load it in the function"),
    ):  # fmt: skip
        if nbytes >= items * LARGE_BYTES and results_cost(items, nbytes, ran_s):
            what = (
                f"its {items:,} {kind} have {size_text(nbytes)}, and the calls ran {ran_s:.2g} s in"
                " all: most of the time went into their way"
            )
            yield Finding(name, Level.WARN, what, fix, code, {"items": items, "bytes": nbytes})


def in_words(hint: Finding) -> str:
    """A hint as a sentence, its code first."""
    code = "" if hint.code is None else hint.code.value
    return f"{code}: map of {hint.about}: {hint.what}. {hint.fix[:1].upper()}{hint.fix[1:]}."


def tell(hints: Iterable[Finding]) -> None:
    """Warn the caller of ``map``, once for each code. Raises nothing: its results are there."""
    for hint in hints:
        mark = object()
        if _told.setdefault(hint.code, mark) is not mark:
            continue
        text = in_words(hint)
        try:
            warnings.warn(text, PerformanceHint, stacklevel=_callers_level())
        except Exception:  # noqa: BLE001 - warnings are errors here, or the program shows them itself
            log.warning("%s", text)


def _callers_level() -> int:
    """The ``stacklevel`` of the first frame outside of gmpd, as its caller needs it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_GMPD):
        level, frame = level + 1, frame.f_back
    return level
