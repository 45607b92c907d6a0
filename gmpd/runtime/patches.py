"""Libraries that patch asyncio, threads or sockets for the whole process: refused where other
jobs would be affected, by an error in the job that calls them.

``nest_asyncio`` replaces the round in the loop's class, after which a P gets no messages: refused
on every P. ``gevent`` and ``eventlet`` replace threads by greenlets, after which the next job that
blocks never ends: refused in a worker that jobs share. An isolated job has a process for itself.

Other libraries that patch the loop's class get an error from ``Sealed``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from gmpd.runtime.internals import restore_asyncio

if TYPE_CHECKING:
    from importlib.abc import Loader

#: Module -> the functions in it that patch: all whose names begin so.
NESTING = {"nest_asyncio": "apply", "nest_asyncio2": "apply"}
GREENLETS = {"gevent.monkey": "patch_", "eventlet": "monkey_patch", "eventlet.patcher": "monkey_"}

_NEST_INSTEAD = (
    "in a coroutine use await, in a plain function asyncio.run: it runs beside the worker's loop"
)
_GREENLETS_INSTEAD = "submit the job with isolate=True: it has a process for itself"


class Sealed(type):
    """The class of a loop's class: it refuses patches, as one P runs code of many authors."""

    def __setattr__(cls, name: str, value: object) -> None:
        restore_asyncio()  # what was patched just before belongs to the same attempt
        raise TypeError(
            f"{cls.__name__}.{name} cannot be replaced: the event loop of gmpd runs Gs of others "
            f"too. {_NEST_INSTEAD[0].upper()}{_NEST_INSTEAD[1:]}"
        )


class Guard:
    """Stands in ``sys.meta_path``; as a library of the lists above is imported, its functions that
    patch are replaced by a refusal. It does not name its protocol, nor does its loader:
    ``importlib.abc`` imports tens of milliseconds of other modules up to Python 3.11.
    """

    def __init__(self, shared: bool):
        self._refused = dict.fromkeys(NESTING, _NEST_INSTEAD)
        if shared:
            self._refused.update(dict.fromkeys(GREENLETS, _GREENLETS_INSTEAD))

    def stand(self) -> None:
        """Refuse patches from here on, and at once those already applied."""
        sys.meta_path.insert(0, self)
        for name in self._refused:
            if name in sys.modules:
                self.disarm(sys.modules[name])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._refused:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Disarming(spec.loader, self)  # type: ignore[assignment]  # see Guard
                return spec
        return None

    def disarm(self, module: ModuleType) -> None:
        """Replace its functions that patch."""
        prefix = (NESTING | GREENLETS)[module.__name__]
        instead = self._refused[module.__name__]
        for name in [name for name in vars(module) if name.startswith(prefix)]:
            if callable(getattr(module, name)):
                setattr(module, name, _refusal(f"{module.__name__}.{name}()", instead))


class _Disarming:
    """Loads a module as its own loader does, and disarms it."""

    def __init__(self, loader: Loader, guard: Guard):
        self._loader = loader
        self._guard = guard

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._guard.disarm(module)


def _refusal(what: str, instead: str) -> Any:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(f"{what} would change this worker for all jobs that it runs: {instead}")

    return refuse
