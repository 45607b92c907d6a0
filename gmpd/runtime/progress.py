"""``gmpd.progress``: a job tells how far it is.

It only keeps the value with the job; its worker sends the latest one some times a second
(``daemon.reports``).
"""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

from gmpd.runtime.roots import root_job

#: Characters of a note that are kept.
NOTE_MAX = 200
#: Amounts are below this.
AMOUNT_MAX = 1 << 62


#: How far a job is: done, total if that is known, and what it is at. No class: it is made in every
#: round of a user's loop.
Progress: TypeAlias = tuple[float, float | None, str]


def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Tell how far this job is: ``done`` of ``total`` (in any unit), and what it is at.

    The latest value is seen by the future (``future.progress``), by ``client.job(id).progress``,
    by ``gmpd jobs show`` and by progress bars. It is sent some times a second at most, so it may be
    called in every round of a loop. A child reports for its job. Outside of a job, and in a thread
    that a job has started by itself, nothing happens.

    Of ``note`` 200 characters are kept. Raises TypeError, ValueError naming the argument: amounts
    are numbers from 0 on.
    """
    if type(done) is not int or not 0 <= done < AMOUNT_MAX:
        done = _amount("done", done)
    if total is not None and (type(total) is not int or not 0 <= total < AMOUNT_MAX):
        total = _amount("total", total)
    if type(note) is not str:
        if not isinstance(note, str):
            raise TypeError(f"note={note!r}: must be a text")
        note = str.__str__(note)
    job = root_job()
    if job is not None:
        job.progressed((done, total, note))


def _amount(name: str, value: Any) -> float:
    """A number of any kind (of NumPy, a Decimal), as int or float."""
    if isinstance(value, bool | str | bytes | bytearray):  # float() would read these, too
        raise TypeError(f"{name}={value!r}: must be a number")
    amount: float
    try:
        amount = operator.index(value)
    except TypeError:
        try:
            amount = float(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"{name}={value!r}: must be a number") from None
    if not 0 <= amount < AMOUNT_MAX:  # nan is not
        raise ValueError(f"{name}={value!r}: must be from 0 to 2**62")
    return amount
