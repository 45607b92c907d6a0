"""An exception of a signal handler that interrupts a value's own code is not the value's.

Python runs a handler in the middle of any code of the main thread. Where the codec catches an
exception of a value's code to try another way, it would catch the handler's too: a program that
bounds its calls by a timer whose handler raises would continue for ever.
"""

from __future__ import annotations

import functools
import inspect
import signal
from types import FrameType
from typing import Any

_SIGNALS = tuple(signal.valid_signals())
_NUMBERS = frozenset(map(int, _SIGNALS))


def pass_on(error: BaseException) -> None:
    """Raise ``error`` again if it comes from a signal handler; for the frame that has caught it."""
    trace = error.__traceback__
    trace = trace.tb_next if trace is not None else None
    if trace is None:
        return  # nothing of Python ran below: the commonest
    codes = {id(_code(signal.getsignal(number))) for number in _SIGNALS}
    while trace is not None:
        if id(trace.tb_frame.f_code) in codes or _is_called_as_handler(trace.tb_frame):
            raise error
        trace = trace.tb_next


def _is_called_as_handler(frame: FrameType) -> bool:
    """Whether its last two arguments are a signal and a frame: a handler that puts another in its
    own place before it raises is no handler any more."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount]
    found = [frame.f_locals.get(name) for name in names]
    if code.co_flags & inspect.CO_VARARGS:
        found += frame.f_locals.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    number, where = found[-2:] if len(found) > 1 else (None, None)
    return isinstance(where, FrameType) and type(number) is int and number in _NUMBERS


def _code(handler: Any) -> object:
    """The code object of a handler; itself where it has none."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)  # a method has its function's
    if code is None and callable(handler):
        code = getattr(type(handler).__call__, "__code__", None)
    return handler if code is None else code
