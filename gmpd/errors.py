"""Every error that gmpd raises on purpose.

    GmpdError
    ├── ConfigError            a file, flag or variable is wrong (the operator's fault)
    ├── StoreBroken            the disk of durable jobs failed (start the daemon again)
    ├── DaemonUnreachable      no daemon there, or it ended (no party's fault)
    ├── ProtocolError          the other side speaks another version, or nonsense (the peer's fault)
    ├── QueueFull              a named limit refused the job; it was not accepted (try again later)
    ├── Unserializable         a value cannot travel (the caller's fault)
    ├── NotAllowed             the daemon does not know this client's key, or its role forbids it
    ├── NotRegistered          no such function where the job was to run (the caller's fault)
    ├── JobError               how a job ended that has no exception of its own
    │   ├── JobTimeout         it ran longer than its own limit
    │   ├── JobCancelled       it was cancelled
    │   ├── WorkerLost         the worker that ran it died
    │   ├── JobPoisoned        it killed several workers and is quarantined
    │   └── RemoteError        its own exception could not be rebuilt here; the texts are kept
    ├── ChanClosed             a channel is closed, and drained if it was received from
    ├── Deadlock               every G of a program waits for another
    ├── UnsupportedPython      this interpreter lacks what gmpd is built on (take another one)
    ├── Panic                  a rule of channels or locks was broken (Go would panic)
    └── InvariantError         gmpd itself is wrong: please report it with the story it carries

This file knows nothing of the rest. Errors that cross a process survive pickling.
"""

from __future__ import annotations

import pickle
from typing import Any


class GmpdError(Exception):
    """The root: ``except gmpd.errors.GmpdError`` catches what gmpd raises on purpose."""


def another(error: Exception) -> Exception:
    """An error like this one, to be raised where it may be raised again: each time that one and the
    same exception is raised, its traceback grows, and keeps what the frames on its way held.
    """
    try:
        like = type(error)(*error.args)
    except Exception:  # noqa: BLE001 - an unusual constructor: it is shared
        return error.with_traceback(None)
    vars(like).update(vars(error))
    if notes := getattr(error, "__notes__", None):
        like.__notes__ = list(notes)
    like.__cause__ = error.__cause__
    return like


class ConfigError(GmpdError):
    """A configuration value is wrong. The text names the value, where it came from and the mend."""


class StoreBroken(GmpdError):
    """The store of durable jobs failed while the daemon ran, which ended it. The next start reads
    from the disk what is there: no acknowledged job is lost."""


class DaemonUnreachable(GmpdError, ConnectionError):
    """No daemon answers, or the connected one has gone away. Jobs it held may be lost.

    ``code``: what the daemon said when it ended, "stopped", "no_workers" or "initializer"; empty
    when it said nothing.
    """

    code = ""


class NoAnswer(DaemonUnreachable, TimeoutError):
    """The daemon did not answer an administrative call in time: it is busy, stopped, or hangs."""


class ProtocolError(GmpdError):
    """The peer sent what the protocol forbids, or speaks another version (both are named)."""


class QueueFull(GmpdError):
    """A limit refused the job: it was *not* accepted, nothing runs.

    ``room`` is how many jobs would fit now, ``retry_after`` seconds are a fair wait.
    """

    def __init__(self, message: str = "queue full", room: int = 0, retry_after: float = 0.1):
        super().__init__(message)
        self.room = room
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.room, self.retry_after)


class Unserializable(GmpdError, pickle.PicklingError, TypeError):
    """A value cannot be sent. The text names the argument, or the path inside the result."""


class NotAllowed(GmpdError, PermissionError):
    """The daemon, on another machine, does not know this client's key (any more), or the key's role
    does not allow what was asked for."""


class NotRegistered(GmpdError, LookupError):
    """The function is unknown where the job was to run: the text names module and attribute."""


class JobError(GmpdError):
    """A job ended without an exception of its own."""


class JobTimeout(JobError, TimeoutError):
    """The job ran longer than its ``timeout`` and was ended."""


class JobExpired(JobTimeout):
    """The job could not begin before its ``expires``."""


class UniqueHeld(JobError):
    """Another job has the ``unique`` key, and has not ended: ``job_id`` names it."""

    def __init__(self, message: str = "another job has its unique key", job_id: str = ""):
        super().__init__(message)
        self.job_id = job_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.job_id)


class LimitPassed(JobTimeout):
    """Raised in a function whose time limit has passed, wherever it is at that moment."""


class ResultRefused(JobError):
    """A result that its client did not take, and that there was no room to keep for it."""


class JobCancelled(JobError):
    """The job was cancelled after it had been accepted."""


class WorkerLost(JobError):
    """The worker that executed the job died; names job, pid and signal or exit status.

    ``culprit``: the function whose job ended it, which may be another's; empty when unknown.
    ``blamed``: it was this job.
    """

    def __init__(
        self,
        message: str,
        job: str = "",
        pid: int = 0,
        signal: str = "",
        exitcode: int | None = None,
        culprit: str = "",
        blamed: bool = False,
    ):
        super().__init__(message)
        self.job = job
        self.pid = pid
        self.signal = signal
        self.exitcode = exitcode
        self.culprit = culprit
        self.blamed = blamed

    def __reduce__(self) -> tuple[Any, ...]:
        values = self.job, self.pid, self.signal, self.exitcode, self.culprit, self.blamed
        return type(self), (str(self), *values)


class JobPoisoned(JobError):
    """The job was executing when several workers died; it is kept, with evidence, and not run."""


class RemoteError(JobError):
    """Stands for an exception that cannot be rebuilt here (its class is unknown or broken).

    ``type_name`` and ``remote_traceback`` are texts.
    """

    def __init__(self, message: str, type_name: str = "", remote_traceback: str = ""):
        super().__init__(message)
        self.type_name = type_name
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.type_name, self.remote_traceback)


class RemoteTraceback(Exception):  # shown as a cause, never raised by itself
    """The traceback text of the other process: shown as the cause of a job's own exception."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class ChanClosed(GmpdError):
    """Receive from a closed, drained channel; a send to a closed one is a Panic, as in Go."""


class Deadlock(GmpdError):
    """All Gs of a program are asleep; the text is Go's, with every G and its wait reason."""


class UnsupportedPython(GmpdError, RuntimeError):
    """This interpreter lacks something that gmpd is built on. The text names it, and what to do."""


class Panic(GmpdError):
    """A rule was broken for which Go panics: send on a closed channel, negative WaitGroup, ..."""


class InvariantError(GmpdError):
    """gmpd broke one of its own rules; carries the events that led there."""
