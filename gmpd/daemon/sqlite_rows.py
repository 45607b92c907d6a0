"""Many rows by one statement.

``executemany`` gives up the GIL at each row and takes it again, behind a coordinator that is busy:
a row took 25 us of CPU and 170 us of time beside one, and 10 us and 40 us in a statement of 256.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

#: Rows of one statement: few sizes, so that SQLite keeps them prepared.
SIZES = (256, 32, 4, 1)

Row = Sequence[Any]


def run_rows(
    db: sqlite3.Connection, before: str, row: str, rows: Sequence[Row], after: str = ""
) -> int:
    """Execute ``before``, as many ``row``s as there are, and ``after``; how many rows changed."""
    changed = 0
    for part in _parts(rows):
        marks = ", ".join([row] * len(part))
        statement = f"{before} {marks} {after}"
        changed += db.execute(statement, list(chain.from_iterable(part))).rowcount
    return changed


def run_numbers(db: sqlite3.Connection, before: str, numbers: Sequence[int]) -> int:
    """Execute ``before (?, ?, …)`` for these numbers; how many rows changed."""
    return run_rows(db, f"{before} (", "?", [(number,) for number in numbers], ")")


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    at = 0
    for size in SIZES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size
