"""Directories that only their owner may enter: for keys, logs, durable jobs and traces."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from pathlib import Path


def make_private(directory: Path) -> None:
    """Make it, and those of its parents that are missing, each 0700; one that is there stays as it
    is. Raises OSError.

    ``mkdir(mode, parents=True)`` gives the mode to the last one only, parents get the umask's.
    """
    missing = list(takewhile(lambda each: not each.exists(), (directory, *directory.parents)))
    for each in reversed(missing):
        with suppress(FileExistsError):  # another process made it meanwhile
            each.mkdir(mode=0o700)
    directory.mkdir(mode=0o700, exist_ok=True)  # a file in its place is an error
