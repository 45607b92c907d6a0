"""What a signal handler raised in the middle of a value's own code is not the value's fault.

Python runs a handler in whatever the main thread does. Where the codec catches what a value's code
raises, to try another way, it would catch that, too: a program that bounds its calls by a timer
whose handler raises would go on for ever.
"""

from __future__ import annotations

import functools
import signal
from typing import Any

_SIGNALS = tuple(signal.valid_signals())


def pass_on(error: BaseException) -> None:
    """Raise ``error`` again if it comes from a signal handler; for the frame that has caught it."""
    trace = error.__traceback__
    trace = trace.tb_next if trace is not None else None
    if trace is None:
        return  # nothing of Python ran below: the commonest
    codes = {id(_code(signal.getsignal(number))) for number in _SIGNALS}
    while trace is not None:
        if id(trace.tb_frame.f_code) in codes:
            raise error
        trace = trace.tb_next


def _code(handler: Any) -> object:
    """The code object of a handler; itself where it has none."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)  # a method has its function's
    if code is None and callable(handler):
        code = getattr(type(handler).__call__, "__code__", None)
    return handler if code is None else code
