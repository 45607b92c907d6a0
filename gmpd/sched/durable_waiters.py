"""Clients that wait for the ends of durable jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from gmpd.sched.stored import Answer, Operation, Results, StoredResult, StoreFailure

_PLAIN: dict[str, Any] = {"builtin_types": (bytes,), "str_keys": True}  # bytes stay bytes


class _Ports(Protocol):
    """The part of ``durable.Ports`` that is needed here."""

    def store(
        self, operation: Operation, told: Callable[[Answer | StoreFailure], None]
    ) -> None: ...

    def reply(self, link: Any, request: int, *, ok: bool, value: Any) -> None: ...


class Waiters:
    """Each of them is a question, which is answered when the end of its job is on disk."""

    def __init__(self, ports: _Ports) -> None:
        self._ports = ports
        #: By the job's id: (link, request) of each.
        self._of: dict[bytes, list[tuple[Any, int]]] = {}

    def add(self, link: Any, request: int, id_: bytes) -> None:
        """Reply when this job has ended; at once if it has, or if there is no such job."""
        waiter = link, request
        self._of.setdefault(id_, []).append(waiter)

        def told(answer: Answer | StoreFailure) -> None:
            if waiter not in self._of.get(id_, ()):
                return  # it ended meanwhile
            if isinstance(answer, StoreFailure):
                self._remove(id_, waiter)
                self._ports.reply(link, request, ok=False, value=answer.text)
                return
            assert isinstance(answer, tuple), answer
            (result,) = answer
            if result is not None:
                self._remove(id_, waiter)
                self._reply(waiter, result)

        self._ports.store(Results((id_,)), told)

    def _remove(self, id_: bytes, waiter: tuple[Any, int]) -> None:
        waiters = self._of[id_]
        waiters.remove(waiter)
        if not waiters:
            del self._of[id_]

    def _reply(self, waiter: tuple[Any, int], result: Any) -> None:
        link, request = waiter
        self._ports.reply(link, request, ok=True, value=msgspec.to_builtins(result, **_PLAIN))

    def ended(self, id_: bytes, result: Callable[[], StoredResult]) -> None:
        """The end of this job is on disk: ``result`` makes it."""
        if waiters := self._of.pop(id_, None):
            made = result()
            for waiter in waiters:
                self._reply(waiter, made)

    def ended_in_store(self, ids: Iterable[bytes]) -> None:
        """Jobs outside of the window ended: their waiters get the results from the store."""
        awaited = [id_ for id_ in ids if id_ in self._of]
        if not awaited:
            return

        def told(answer: Answer | StoreFailure) -> None:
            if isinstance(answer, StoreFailure):
                return
            assert isinstance(answer, tuple), answer
            for id_, result in zip(awaited, answer, strict=True):
                for waiter in self._of.pop(id_, []) if result is not None else []:
                    self._reply(waiter, result)

        self._ports.store(Results(tuple(awaited)), told)

    def fail(self, text: str) -> None:
        """The store has failed: all are told."""
        waiters, self._of = self._of, {}
        for link, request in (waiter for each in waiters.values() for waiter in each):
            self._ports.reply(link, request, ok=False, value=text)

    def forget(self, link: Any) -> None:
        """A client has gone: it waits for nothing."""
        self._of = {
            id_: left
            for id_, waiters in self._of.items()
            if (left := [each for each in waiters if each[0] != link])
        }
