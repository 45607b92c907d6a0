"""The exit codes, all of them. Scripts rely on them: they never change their meaning."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of commands."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done"
    JOB_FAILED = 1, "a job failed"
    USAGE = 2, "wrong arguments"
    UNREACHABLE = 3, "no daemon"
    NOT_FOUND = 4, "not found"
    TIMEOUT = 5, "a timeout passed"
    REJECTED = 6, "refused (queue full, draining)"
    VERSION = 7, "the daemon speaks another version"
    BUG = 70, "a bug in gmpd"  # EX_SOFTWARE of sysexits.h
    MACHINE = 71, "the machine refused: disk, memory, descriptors"  # EX_OSERR
    STORE = 75, "the store of durable jobs failed: start the daemon again"  # EX_TEMPFAIL
    CONFIG = 78, "wrong settings"  # EX_CONFIG
    INTERRUPTED = 130, "Ctrl-C"  # 128 + SIGINT, as a shell says it
    PIPE = 141, "the reader left"  # 128 + SIGPIPE
    TERMINATED = 143, "ended by a signal"  # 128 + SIGTERM


def exit_of(error: BaseException) -> Exit:
    """The code of an error of gmpd's own tree; BUG for any other."""
    from gmpd import errors

    for kind, code in (
        (errors.ConfigError, Exit.CONFIG),
        (errors.UnsupportedPython, Exit.CONFIG),
        (errors.StoreBroken, Exit.STORE),
        (errors.DaemonUnreachable, Exit.UNREACHABLE),
        (errors.ProtocolError, Exit.VERSION),
        (errors.QueueFull, Exit.REJECTED),
        (errors.NotAllowed, Exit.REJECTED),
        (errors.NotRegistered, Exit.NOT_FOUND),
        (errors.Unserializable, Exit.USAGE),
        (errors.JobTimeout, Exit.TIMEOUT),
        (errors.JobError, Exit.JOB_FAILED),
    ):
        if isinstance(error, kind):
            return code
    # Without a kind of its own it is the refusal of a daemon, in its words.
    return Exit.REJECTED if type(error) is errors.GmpdError else Exit.BUG
