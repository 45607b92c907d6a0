"""Progress and output of running jobs, as they tell it.

A record is made by the first word of a job, so jobs that tell nothing have none; it goes with the
job.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gmpd.protocol import Output, Progress
from gmpd.sched.instructions import Instruction, NotifyProgress, PassOutput
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import PRecord, Session


class Seen:
    """``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._out = out

    def progressed(self, record: PRecord, message: Progress) -> None:
        """Jobs of a worker told how far they are. Those of its children are its own."""
        told: dict[Session, list[int]] = {}
        for row, token in enumerate(message.jobs):
            job = record.job(token)
            if job is None:
                continue  # it has ended, to its client at least
            session = job.session
            if session.parent is None:
                self._ledger.progress[job] = _row(message, row)
            if (session.parent is not None or session.watches) and self._ledger.is_open(session):
                told.setdefault(session, []).append(row)
        self._out.extend(
            NotifyProgress(session, _about(record, message, rows)) for session, rows in told.items()
        )

    def printed(self, record: PRecord, message: Output) -> None:
        """Captured jobs of a worker have printed."""
        passed: dict[Session, Output] = {}
        for token, chunk, skipped in zip(
            message.jobs, message.chunks, message.skipped, strict=True
        ):
            job = record.job(token)
            if job is None:
                continue
            if job.session.parent is None:
                self._ledger.output.add(job, chunk, skipped)
            elif self._ledger.is_open(job.session):
                to = passed.setdefault(job.session, Output([], [], []))
                to.jobs.append(job.seq)
                to.chunks.append(chunk)
                to.skipped.append(skipped)
        self._out.extend(PassOutput(*each) for each in passed.items())


def _row(message: Progress, row: int) -> tuple[Any, Any, str]:
    return message.done[row], message.total[row], message.notes[row]


def _about(record: PRecord, message: Progress, rows: Iterable[int]) -> Progress:
    """Some rows of a message, with the numbers that their client has for the jobs."""
    about = Progress([], [], [], [])
    for row in rows:
        job = record.job(message.jobs[row])
        assert job is not None
        about.jobs.append(job.seq)
        about.done.append(message.done[row])
        about.total.append(message.total[row])
        about.notes.append(message.notes[row])
    return about
