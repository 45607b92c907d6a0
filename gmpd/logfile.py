"""The file that standard error of a process goes to: it is moved away to be rotated, and opened
again on demand."""

from __future__ import annotations

import logging
import os
import stat

log = logging.getLogger("gmpd.log")


class LogFile:
    """The log file of descriptor ``fd``, if that is a file."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._path = ""
        if stat.S_ISREG(os.fstat(fd).st_mode):
            self._path = os.readlink(f"/proc/self/fd/{fd}")

    def reopen(self) -> None:
        """Write to the file of that name from now on; workers that start later do, too."""
        if not self._path or self._is_there():
            return
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        try:
            new = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            log.error("%s cannot be opened again: %s", self._path, error.strerror)
            return
        old = os.fstat(self._fd)
        for fd in {1, self._fd}:
            if os.path.samestat(os.fstat(fd), old):
                os.dup2(new, fd)
        os.close(new)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return False
