"""Jobs as people read them: a row each, or one with its story, in lines of 80 columns."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from gmpd.cli.status import limit_text
from gmpd.client.progress import in_one_line
from gmpd.client.stored import Attempt
from gmpd.daemon.logs import visible
from gmpd.explain import explain
from gmpd.status import KeyLimit

#: Columns of a line.
WIDTH = 80


def columns() -> int:
    """Width of the terminal that stdout is; 0: stdout is none, and lines are not cut."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else 0


def table(found: list[dict[str, Any]], width: int = 0) -> list[str]:
    """A row for each job. The function is cut from the left, to lines of ``width`` columns."""
    if not found:
        return []
    rows = [("ID", "KIND", "STATE", "AGE", "TRY", "FUNCTION")]
    now = time.time()
    for job in found:
        kind = "durable" if job["durable"] else "volatile"
        age, attempt = age_of(now - job["created"]), str(job["attempt"])
        rows.append((job["id"], kind, job["state"], age, attempt, job["function"]))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    room = max(8, width - sum(widths) - 10) if width else 0
    heads = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=False)) for row in rows]
    return [f"{head}  {cut(row[5], room)}" for head, row in zip(heads, rows, strict=True)]


def cut(name: str, room: int) -> str:
    """The end of a function's name, in ``room`` columns; 0: all of it."""
    return name if not room or len(name) <= room else f"…{name[1 - room :]}"


def described(info: dict[str, Any], story: Sequence[Attempt]) -> Iterator[str]:
    """A job, where it stands, and each of its attempts."""
    yield f"{info['id']}  {info['state']}"
    for name, text in _facts(info):
        yield from _indented(f"  {name:<10}", text)
    for each in story:
        yield ""
        yield f"attempt {each.n}: {each.outcome}{_strikes(each)}"
        for name, text in _attempt_facts(each):
            yield from _indented(f"  {name:<10}", text)
    if story and story[-1].traceback:
        yield ""
        yield visible(story[-1].traceback.rstrip())


def _facts(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kind = "durable" if info["durable"] else "volatile"
    yield "function", info["function"]
    client = info["client"] or "a client without a name"
    yield "kind", f"{kind}, of {client}, priority {info['priority']}"
    yield "accepted", moment(info["created"])
    if info["progress"] is not None:
        yield "progress", in_one_line(info["progress"])
    if info["limit"] is not None:
        yield "waits for", f"its limit: {limit_text(msgspec.convert(info['limit'], KeyLimit))}"
    if info["unique"]:
        yield "unique", info["unique"]
    if info["ended"] is not None:
        yield "ended", f"{moment(info['ended'])}, kept until {moment(info['ended'] + info['keep'])}"
    elif info["run_at"] > time.time():
        yield "begins", moment(info["run_at"])
    if info["text"]:
        yield "why", info["text"]
    if info["ended"] is None:
        yield "now", str(explain(info, time.time()))


def _attempt_facts(attempt: Attempt) -> Iterator[tuple[str, str]]:
    if attempt.pid is not None:
        where = "a worker of its own" if attempt.p is None else f"P{attempt.p}"
        yield "where", f"{where} (pid {attempt.pid})"
    if attempt.began is not None:
        yield "began", moment(attempt.began)
    if attempt.ended is not None:
        yield "ended", f"{moment(attempt.ended)}, ran {attempt.ran_s:.3g} s"
    else:
        yield "runs for", f"{attempt.ran_s:.3g} s"
    if attempt.text:
        yield "why", attempt.text


def _strikes(attempt: Attempt) -> str:
    if not attempt.strikes:
        return ""
    return f", {attempt.strikes} strike{'s' if attempt.strikes > 1 else ''}"


def _indented(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        visible(text),
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    ) or [head.rstrip()]


def moment(at: float) -> str:
    """Local time, with its zone."""
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")


def age_of(seconds: float) -> str:
    """``5 s``, ``12 min``, ``3 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
