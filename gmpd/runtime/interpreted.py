"""The place of Cython in a module that Python runs as it is.

Types of C are in the ``.pxd`` file beside a module, and need nothing here. Where what a compiled
module does differs, it says so by ``cython.compiled``.
"""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

#: In a compiled module the name means Cython's own, which is true.
compiled = False


def as_source(module: Any) -> Any:
    """The same module as Python runs it: itself, or a second one that is made of its source."""
    if not getattr(module, "COMPILED", True):  # C hides it
        return module
    loader = SourceFileLoader(module.__name__, module.__file__)
    spec = spec_from_loader(module.__name__, loader)
    assert spec is not None
    made = module_from_spec(spec)
    loader.exec_module(made)
    return made


# ---- what the .pxd files define in C -------------------------------------------------------------


#: The result of ``resume`` when the coroutine has ended: ``returned`` has its value.
ENDED: Any = None


def resume(context: Any, coro: Any) -> Any:
    """The value that a coroutine yields when it is resumed in a context."""
    raise NotImplementedError


def taken(result: Any) -> Any:
    """The result of ``resume``; what the coroutine raised is raised."""
    raise NotImplementedError


def returned() -> Any:
    """The value of the coroutine that has just ended."""
    raise NotImplementedError


def note_maker(g: Any) -> None:
    """Set ``made_by`` and ``made_at`` to where the innermost frame is."""
    raise NotImplementedError


def set_class(g: Any, kind: type) -> None:
    """Let ``g`` be of another class with the same fields."""
    raise NotImplementedError


def as_slots(kind: type, made: Any, *values: Any) -> None:
    """Let Python's bytecode read the fields of a compiled class as fast as slots, which the class
    has otherwise."""


def is_function(fn: Any) -> bool:
    """Whether ``flags_of`` is for it."""
    raise NotImplementedError


def flags_of(fn: Any) -> int:
    """The flags of a function's code."""
    raise NotImplementedError


def is_known() -> bool:
    """Whether the running loop is the one of ``known_p``."""
    raise NotImplementedError


def known_p() -> Any:
    """The P that was last told to ``know``."""
    raise NotImplementedError


def know(p: Any) -> None:
    """The running loop is that of ``p``."""
    raise NotImplementedError


def forget() -> None:
    """The known loop was closed, or this is a fork."""
    raise NotImplementedError


def learn_base(shm: Any) -> None:
    """Let ``put`` and ``put_record`` know where the memory of ``shm`` is mapped."""


def forget_base(shm: Any) -> None:
    """The memory is about to be unmapped: the two raise ValueError from now on."""


def put(shm: Any, slot: int, value: int) -> None:
    """Write an integer of the status block."""
    raise NotImplementedError


def put_record(
    shm: Any, at: int, outcome: int, token: int, payload: bytes, ran_us: int, occupied_us: int
) -> None:
    """Write a record of the outbox."""
    raise NotImplementedError
