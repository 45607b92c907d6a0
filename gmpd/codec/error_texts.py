"""The texts of an exception: class, message, notes, traceback, each of bounded size.

User code runs here (``__str__``, properties, metaclasses) and may raise anything; the process may
have no free descriptor. A text always results.
"""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

from gmpd.compiled import source_file
from gmpd.errors import GmpdError, RemoteError

#: Bytes of any one text: enough for a deep traceback, small beside a frame.
TEXT_MAX = 64 * 1024
#: Of a name of a class or module.
NAME_MAX = 256
_NOTES_MAX = 100
#: Exceptions shown of a chain or a group; a traceback of each costs about 100 µs.
CHAIN_MAX = 100
#: A longer message is cut before the traceback module would copy it several times over.
_MESSAGE_MAX = 1024 * 1024
_READ = ("__class__", "__dict__", "__traceback__", "__cause__", "__context__", "args")
#: Innermost frames shown of each: far above any honest stack, below a raised recursion limit.
_FRAMES_MAX = 2000

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: Files of the frames between a worker's start and the user's function. Jobs of gmpd itself
#: (`gmpd run`, `gmpd demo`) count as a user's.
_OWN_CODE = tuple(os.path.join(_PACKAGE, room, "") for room in ("codec", "daemon", "runtime"))
#: The frames that call what the user submitted.
_CALLERS = frozenset(
    (os.path.join(_PACKAGE, "daemon", module), name)
    for module, name in (("attempt.py", "_invoke"), ("lease_run.py", "_call"))
)
_TRACEBACK = "Traceback (most recent call last):\n"


def notes_of(exc: BaseException) -> list[str]:
    """The texts that ``add_note`` added; none where the attribute is something else."""
    try:
        notes: Any = exc.__notes__
        if type(notes) is not list:
            return []
        return [clean(note) for note in notes[:_NOTES_MAX] if isinstance(note, str)]
    except Exception:  # noqa: BLE001 - no notes, or a property
        return []


def name_of(kind: type) -> str:
    """The class as a traceback names it: with its module, builtins without."""
    module = attribute_text(kind, "__module__")
    qualname = attribute_text(kind, "__qualname__")
    return qualname if module == "builtins" else f"{module}.{qualname}"


def attribute_text(kind: type, name: str) -> str:
    """``kind.__module__`` or another name of a class; "?" where a metaclass refuses it."""
    try:
        return clean(getattr(kind, name), NAME_MAX)
    except Exception:  # noqa: BLE001 - a metaclass
        return "?"


def text_of(exc: BaseException) -> str:
    """``str(exc)``, or the reason why there is none."""
    try:
        return clean(str(exc))
    except BaseException as second:  # noqa: BLE001 - the job's error must arrive
        return (
            f"(its text cannot be read: __str__ raised {attribute_text(type(second), '__name__')})"
        )


def clean(text: str, limit: int = TEXT_MAX) -> str:
    """``text`` as an exact str of at most ``limit`` bytes, its middle cut out if need be."""
    length = str.__len__(text)
    if length > limit:
        half = limit // 2 - 32
        head = str.__getitem__(text, slice(0, half))
        tail = str.__getitem__(text, slice(length - half, length))
        text = f"{head}\n… {length - 2 * half} characters left out …\n{tail}"
    data = str.encode(text, "utf-8", "backslashreplace")
    if len(data) > limit:
        half = limit // 2 - 32
        data = data[:half] + "\n… cut …\n".encode() + data[-half:]
    return data.decode("utf-8", "ignore")


def traceback_text(exc: BaseException) -> str:
    """The traceback, from the first frame of the user's.

    Falls back to shorter forms that need less: no code of the exception, then no file or import.
    """
    try:
        if is_modest(exc):
            return clean("".join(_format(exc)))
    except BaseException:  # noqa: BLE001, S110 - user code again; the short form runs less of it
        pass
    try:
        return clean("".join(_format_alone(exc)))
    except Exception:  # noqa: BLE001 - it imports and opens files, perhaps without a free descriptor
        return clean("".join(_format_places(exc)))


def readable(exc: BaseException) -> BaseException:
    """``exc``, or an error in its place if its class forbids to read the attributes that every
    exception has: even ``isinstance`` would raise."""
    kind = type(exc)
    if kind.__getattribute__ is BaseException.__getattribute__:
        return exc
    try:
        for name in _READ:
            getattr(exc, name)
    except BaseException as error:  # noqa: BLE001 - a job may raise what it likes here too
        name = attribute_text(type(error), "__name__")
        text = f"{name_of(kind)} (it cannot be read: __getattribute__ raised {name})"
        trace = BaseException.__dict__["__traceback__"].__get__(exc)
        return RemoteError(text, name_of(kind), "").with_traceback(trace)
    return exc


def is_modest(exc: BaseException) -> bool:
    """Whether chain and groups together are small enough for the traceback module."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one = readable(one)
        if len(seen) > CHAIN_MAX or _message_length(one) > _MESSAGE_MAX:
            return False
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            if len(one.exceptions) > CHAIN_MAX:
                return False
            waiting += one.exceptions
    return True


def _message_length(exc: BaseException) -> int:
    try:
        return len(str(exc))
    except BaseException:  # noqa: BLE001 - the traceback module says so in its place
        return 0


def _format(exc: BaseException) -> Iterator[str]:
    whole = traceback.TracebackException(
        type(exc), exc, exc.__traceback__, limit=-_FRAMES_MAX, compact=True
    )
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [whole]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        _hide_own_frames(one.stack, keep_all=one is whole and not isinstance(exc, GmpdError))
        waiting += [one.__cause__, one.__context__, *(one.exceptions or ())]
    return whole.format()


def _hide_own_frames(stack: traceback.StackSummary, *, keep_all: bool) -> None:
    """Drop gmpd's own frames before the first of the user's.

    A stack of nothing else is a fault of gmpd, where they are all that helps: ``keep_all``. Unless
    it ends where gmpd called the user's function: that is a built-in one, which has no frame.
    """
    if stack and _place(stack[-1]) in _CALLERS:
        keep_all = False
    foreign = (
        i for i, frame in enumerate(stack) if not source_file(frame.filename).startswith(_OWN_CODE)
    )
    first = next(foreign, 0 if keep_all else len(stack))
    del stack[:first]


def _place(frame: traceback.FrameSummary) -> tuple[str, str]:
    """File and function; compiled code names its functions with module and class."""
    return source_file(frame.filename), frame.name.rpartition(".")[2]


def _format_alone(exc: BaseException) -> Iterator[str]:
    """Type, message and frames of ``exc`` alone, without its chain and without its code."""
    yield _TRACEBACK
    walk = traceback.walk_tb(exc.__traceback__)
    frames = traceback.StackSummary.extract(walk, limit=-_FRAMES_MAX)
    _hide_own_frames(frames, keep_all=True)
    yield from frames.format()
    yield from _last_lines(exc)


def _format_places(exc: BaseException) -> Iterator[str]:
    """As ``_format_alone``, without source lines: it opens no file and imports no module."""
    yield _TRACEBACK
    trail, tb = deque[str](maxlen=_FRAMES_MAX), exc.__traceback__
    while tb is not None:
        code = tb.tb_frame.f_code
        trail.append(f'  File "{code.co_filename}", line {tb.tb_lineno}, in {code.co_name}\n')
        tb = tb.tb_next
    yield from trail
    yield from _last_lines(exc)


def load_formatter() -> None:
    """Import what the standard library's traceback module imports at its first use (on 3.15).

    Called when a process starts: later it may have no free descriptor, or no working directory.
    """
    try:
        raise RuntimeError
    except RuntimeError as error:
        traceback.format_exception(error)


def _last_lines(exc: BaseException) -> Iterator[str]:
    yield f"{name_of(type(exc))}: {text_of(exc)}\n"
    for note in notes_of(exc):
        yield f"{note}\n"
    if exc.__cause__ is not None or exc.__context__ is not None:
        yield "(what it came from is too long to show)\n"
