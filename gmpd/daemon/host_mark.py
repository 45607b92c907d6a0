"""A file beside the durable jobs: some of them may run on hosts.

A daemon that is killed leaves it there, and its hosts run on until the ends of their leases. The
next one takes no durable job before. It does not say which jobs were at hosts: a write for each
lease would cost more than this wait, which follows a kill only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NAME = "hosts"
#: Nothing of a host runs any more this much after the end of its lease (seconds).
EXIT_S = 4.0
#: No mark has a longer lease (seconds).
LEASE_MAX_S = 86_400.0


def set_mark(directory: Path, lease_s: float) -> None:
    """Hosts have this lease from now on. Raises OSError."""
    new = directory / f"{NAME}.new"
    with new.open("w") as file:
        file.write(f"{lease_s}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / NAME)
    entry = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


def wait_after(directory: Path, lease_s: float) -> float:
    """Seconds from now on in which jobs of a former daemon may run on hosts; 0: none do.
    ``lease_s``: where the mark cannot be read."""
    try:
        told_s = float((directory / NAME).read_text())
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError):
        told_s = 0.0
    return (told_s if 0 < told_s <= LEASE_MAX_S else lease_s) + EXIT_S


def clear_mark(directory: Path) -> None:
    """Nothing of this daemon runs on hosts."""
    with suppress(OSError):
        (directory / NAME).unlink()
