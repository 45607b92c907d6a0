"""Two faces of every lock: ``async with`` for Gs, ``with lock.sync`` for sync Gs and threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable


class Locker(ABC):
    """An object with lock and unlock (Go: ``sync.Locker``), as a context manager of Gs."""

    __slots__ = ()

    @abstractmethod
    def lock(self) -> Awaitable[None]:
        """Lock; await it."""

    @abstractmethod
    def unlock(self) -> None:
        """Unlock. From anywhere."""

    async def __aenter__(self) -> None:
        await self.lock()

    async def __aexit__(self, *_exc: object) -> None:
        self.unlock()


class SyncLock:
    """A lock's face for sync Gs and threads: ``with mutex.sync:``; P is handed off for the wait."""

    __slots__ = ("_lock", "_unlock")

    def __init__(self, lock: Callable[[], None], unlock: Callable[[], None]):
        self._lock = lock
        self._unlock = unlock

    def lock(self) -> None:
        """As the lock's own ``lock``; blocks the caller."""
        self._lock()

    def unlock(self) -> None:
        """As the lock's own ``unlock``."""
        self._unlock()

    def __enter__(self) -> None:
        self._lock()

    def __exit__(self, *_exc: object) -> None:
        self._unlock()
