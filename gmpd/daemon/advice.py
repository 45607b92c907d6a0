"""The advice of a failed attempt about the next one, by its job's options and its exception.

It is asked in the worker, where the exception is an object, before the attempt ends. The job's own
function for the delay is user code: whatever it does, the attempt has its outcome.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from gmpd.codec import FunctionRef, resolve_function
from gmpd.errors import NotRegistered
from gmpd.job import DECLARED, SECONDS_MAX, class_name, options_of
from gmpd.protocol import Options, Report


def is_asked(options: Options | None) -> bool:
    """Whether a failed attempt has anything to say."""
    return options is not None and (options.retry_on is not None or options.backoff_fn is not None)


def advise(options: Options, error: BaseException, ref: FunctionRef) -> Report | None:
    """``ref``: of the function that raised ``error``; the function for the delay came with it."""
    if options.retry_on is not None and not _is_among(error, options.retry_on):
        return {"final": True}
    told = options.backoff_fn
    if told is None:
        return None
    name = f"the backoff of {ref.name}" if told == DECLARED else f"backoff={told[1]}"
    try:
        wait_s = _seconds(_function(told, ref)(options.attempt or 1, error))
    except BaseException as raised:  # noqa: BLE001 - user code: anything may come out of it
        return {"remark": f"{name} raised {type(raised).__name__}: the usual wait"}
    if wait_s is None:
        return None
    if isinstance(wait_s, str):
        return {"remark": f"{name} gave {wait_s}, no number of seconds: the usual wait"}
    return {"wait_s": wait_s}


def _function(told: tuple[str, str, bytes], ref: FunctionRef) -> Callable[[int, Any], Any]:
    if told != DECLARED:
        return resolve_function(FunctionRef(*told, ref.needs))
    fn = options_of(resolve_function(ref)).backoff
    if not callable(fn):
        raise NotRegistered(f"{ref.name} declares no function for the wait here")
    return fn


def _is_among(error: BaseException, names: tuple[str, ...]) -> bool:
    try:
        return any(class_name(cls) in names for cls in type(error).__mro__)
    except Exception:  # noqa: BLE001 - a class may have anything for a name
        return False


def _seconds(value: Any) -> float | str | None:
    """None: the usual wait. A text names what is no wait."""
    if value is None:
        return None
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine"
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value).__name__
    if math.isnan(value) or not 0 <= value <= SECONDS_MAX:
        return f"{value:g}"
    return float(value)
