"""Errors of pools that are those of the standard pools, too. Imported only when there is one, with
multiprocessing."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from multiprocessing import pool
from typing import Any

from gmpd.errors import DaemonUnreachable, Unserializable


class BrokenPool(BrokenProcessPool, DaemonUnreachable):
    """Nothing runs in an ``Executor`` any more: its initializer failed, its daemon or its workers
    are gone. It is an error of a process pool for programs that expect one, and one of gmpd."""


#: Names that typeshed does not have.
_standard: Any = pool
MaybeEncodingError: Any = _standard.MaybeEncodingError


def traceback_of(text: str) -> BaseException:
    """The traceback of a worker, as the cause of an exception of a ``Pool``."""
    return _standard.RemoteTraceback(text)  # type: ignore[no-any-return]


class UnsentResult(MaybeEncodingError, Unserializable):  # type: ignore[misc]
    """The result of a call of a ``Pool`` that cannot be sent."""

    @classmethod
    def of(cls, error: Unserializable) -> UnsentResult:
        """With the text of the worker's."""
        made = cls(error, error)
        made.args = (str(error),)
        made.exc, made.value = repr(error.__cause__ or error), str(error)
        made.__cause__ = error.__cause__
        for note in getattr(error, "__notes__", ()):
            made.add_note(note)
        return made

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        return UnsentResult.of, (Unserializable(*self.args),)
