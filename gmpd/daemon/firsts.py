"""The first time that a worker needs a function: one job imports its module, or loads the parts of
its program; those that need the same do not begin before that is done.

A job that has begun all the same waits for the import, and no line of its function has run. Should
the worker die meanwhile (the import crashes, or a neighbour), it is not to blame. So it says in the
shared memory that it waits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from gmpd.codec import finding, resolve_function
from gmpd.codec.functions import FunctionRef
from gmpd.daemon.definitions import RemoteFunction
from gmpd.daemon.shm import WorkerShm
from gmpd.runtime.handoffs import requeue_deferred
from gmpd.runtime.p import P


class Firsts:
    """Modules that jobs of this worker import just now, and programs of which they load parts."""

    def __init__(self, shm: WorkerShm, p: P) -> None:
        self._shm = shm
        self._p = p
        self._lock = threading.Lock()
        self._busy: set[str | bytes] = set()

    def resolve(self, token: int, fn: RemoteFunction) -> Callable[..., Any]:
        """The function for a job, which may have to be imported. Raises as ``resolve_function``."""
        if _is_there(fn.ref):
            found = resolve_function(fn.ref)
        else:
            found = self._import(token, fn.ref)
        fn.here = True
        return found

    def _import(self, token: int, ref: FunctionRef) -> Callable[..., Any]:
        place, what = None, _needed(ref)
        imported = not ref.needs and _module_of(ref) in sys.modules
        with self._lock:
            first = what not in self._busy
            if imported or not first:  # by another one just now
                place = self._shm.queue_up(token)
            if first:
                self._busy.add(what)
                self._p.holds_back = self._holds_back
        try:
            return resolve_function(ref)
        finally:
            with self._lock:
                if place is not None:
                    self._shm.waits_no_more(place)
                if first:
                    self._busy.discard(what)
                    self._p.holds_back = self._holds_back if self._busy else None
                    self._p.p_callbacks.threadsafe(requeue_deferred, self._p)

    def _holds_back(self, g: Any) -> bool:
        """Whether a job would wait for what another one imports, and take a thread for that. A
        module beside that one need not wait: its job may be what the import waits for."""
        fn = getattr(g, "fn", None)
        if not isinstance(fn, RemoteFunction) or fn.here:
            return False
        if fn.ref.needs:
            return _needed(fn.ref) in self._busy and not _is_there(fn.ref)
        module = _module_of(fn.ref)
        return module in self._busy or self._is_within_one(module)

    def _is_within_one(self, module: str) -> bool:
        """Whether a package around it is being imported, and a job here waits for that, too: the
        end of that job's import lets those begin that were held back."""
        package = module.rpartition(".")[0]
        if not finding.is_being_imported(package):
            return False
        top = module.partition(".")[0]
        with self._lock:
            return any(
                isinstance(each, str) and each.partition(".")[0] == top for each in self._busy
            )


def _needed(ref: FunctionRef) -> str | bytes:
    """The module of a function, or its program."""
    if ref.needs:
        ident: bytes = ref.needs[0].hosted.id
        return ident
    return _module_of(ref)


def _module_of(ref: FunctionRef) -> str:
    return ref.name.partition(":")[0]


def _is_there(ref: FunctionRef) -> bool:
    if ref.needs:
        return all(part.objects is not None for part in ref.needs)
    return finding.is_imported(_module_of(ref))
