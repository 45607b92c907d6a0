"""The file of an ipc endpoint: found, renamed and removed."""

from __future__ import annotations

import os


def inode_at(endpoint: str) -> tuple[int, int]:
    """Device and inode of an ipc endpoint's file; (0, 0) if there is none, or it is no ipc."""
    try:
        info = os.stat(endpoint.removeprefix("ipc://"), follow_symlinks=False)
    except OSError:
        return 0, 0
    return info.st_dev, info.st_ino


def rename_file(old: str, new: str) -> bool:
    """Whether it could be; the whole directory may have been removed."""
    try:
        os.rename(old, new)
    except OSError:
        return False
    return True


def remove_file(endpoint: str) -> None:
    """Remove an ipc endpoint's file. The caller holds the runtime directory's lock."""
    if endpoint.startswith("ipc://"):
        try:
            os.unlink(endpoint.removeprefix("ipc://"))
        except FileNotFoundError:
            pass
