"""Exceptions as bytes: texts for all processes, and a pickle for those that may unpickle.

An exception is the one value that must always arrive, whatever its class does: user code that runs
here (``__str__``, ``__repr__``, ``__reduce__``, properties) may raise anything, return anything of
any size. One whose ``__init__`` cannot be called again is rebuilt without; an argument that cannot
be sent is its text; texts of megabytes among its arguments are cut in the middle; a group's members
travel one by one. Only an exception that cannot be rebuilt arrives as RemoteError.
"""

from __future__ import annotations

import builtins
import copyreg
from enum import Enum, auto
from typing import Any, NamedTuple

import msgpack

from gmpd import errors
from gmpd.codec import hosted_programs, interrupts, pickles
from gmpd.codec.error_texts import (
    CHAIN_MAX,
    NAME_MAX,
    TEXT_MAX,
    attribute_text,
    clean,
    is_modest,
    name_of,
    notes_of,
    readable,
    text_of,
    traceback_text,
)
from gmpd.codec.pickles import Buffer
from gmpd.errors import GmpdError, ProtocolError, RemoteError, RemoteTraceback

#: An exception that carries more than this is sent as its texts only.
_PICKLE_MAX = 1024 * 1024
#: As is a group whose members together are larger.
_PARTS_MAX = 4 * _PICKLE_MAX
#: Groups within groups that are sent part by part.
_GROUP_DEPTH_MAX = 16
_REPR_MAX = 1024
_TEXT_NOTE = "(an argument of it cannot be sent, and came as its text)"
_CUT_NOTE = "(a text of it was too long to be sent, and is cut in the middle)"

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
#: Modules whose exceptions are rebuilt by name from scalar arguments, without pickle.
_BY_NAME = {"builtins": vars(builtins), errors.__name__: vars(errors)}


class _Args(Enum):
    """The forms in which an exception's arguments may be sent, the best first."""

    WHOLE = auto()
    #: Long texts without their middle.
    CUT = auto()
    #: Those that cannot be sent as their texts.
    TEXTS = auto()


class ErrorSummary(NamedTuple):
    """The texts of an error that can be had without running its code.

    ``type`` is the class with its module (builtins without), ``traceback`` includes the last line.
    """

    type: str
    message: str
    traceback: str


def encode_error(exc: BaseException, *, plain: bool = False) -> bytes:
    """``exc`` as a msgpack map; never raises because of what ``exc`` is.

    With ``plain`` nothing is pickled. The traceback begins where gmpd's own frames end.
    """
    if (hosted := hosted_programs.current()) is not None:
        hosted.show_sources()
    return _encode(readable(exc), plain, 0)


def _encode(exc: BaseException, plain: bool, depth: int) -> bytes:
    kind = type(exc)
    error: dict[str, Any] = {
        "type": name_of(kind),
        "module": attribute_text(kind, "__module__"),
        "qualname": attribute_text(kind, "__qualname__"),
        "message": text_of(exc),
        "traceback": traceback_text(exc),
        "notes": notes_of(exc),
    }
    parts = _parts(exc, plain, depth)
    args = _plain_args(exc) if parts is None else None
    if parts is not None:
        error["parts"] = parts
        error["group"] = _group_text(exc)
        if not plain and type(exc) is not ExceptionGroup and type(exc) is not BaseExceptionGroup:
            error["grouped"] = _group_kind(exc)
    elif args is not None:
        error["args"] = args
    elif not plain:
        _pickle_somehow(exc, error)
    elif (args := _plain_args(exc, cut=True)) is not None:
        error["args"] = args
        error["notes"].append(_CUT_NOTE)
    packed: bytes = msgpack.packb(error)
    return packed


def _pickle_somehow(exc: BaseException, error: dict[str, Any]) -> None:
    """Add ``exc`` itself to ``error``, whole or as much of it as can be sent."""
    pickled = _pickled(exc)
    if pickled is not None:
        error["pickled"] = pickled
        return
    for how in _Args:
        if (bare := _bare(exc, how)) is not None:
            error["bare"], lost = bare
            if lost:
                names = clean(", ".join(lost), NAME_MAX)
                error["notes"].append(f"(came without attributes that cannot be sent: {names})")
            if how is _Args.CUT:
                error["notes"].append(_CUT_NOTE)
            elif how is _Args.TEXTS:
                error["notes"].append(_TEXT_NOTE)
            return


def decode_error(data: Buffer, *, plain: bool = False) -> BaseException:
    """The exception again, with ``RemoteTraceback`` as its cause.

    Its own class when that can be rebuilt here, else RemoteError. With ``plain`` nothing is
    unpickled: builtin exceptions still keep their class. Raises ProtocolError for garbage.
    """
    return _decode(data, plain, 0)


def _decode(data: Buffer, plain: bool, depth: int) -> BaseException:
    error = _unpack(data)
    exc = _from_parts(error, plain, depth) or _from_args(error)
    if exc is None and not plain and type(error.get("pickled")) is bytes:
        exc = _from_pickle(error["pickled"])
    if exc is None and not plain and type(error.get("bare")) is bytes:
        exc = _from_bare(error["bare"])
    if exc is None or not _decorate(exc, error):
        exc = RemoteError(_remote_message(error), error["type"], error["traceback"])
        _decorate(exc, error)
    return exc


def error_summary(data: Buffer) -> ErrorSummary:
    """The texts of an encoded error; never unpickles. Raises ProtocolError for garbage."""
    error = _unpack(data)
    return ErrorSummary(error["type"], error["message"], error["traceback"])


def add_job_note(exc: BaseException, text: str) -> None:
    """``exc.add_note(text)``, for exceptions that forbid it too."""
    try:
        BaseException.add_note(exc, text)
    except Exception:  # noqa: BLE001 - __notes__ is no list, or __setattr__ refuses
        _set(exc, "__notes__", [*notes_of(exc), text])


def _unpack(data: Buffer) -> dict[str, Any]:
    try:
        error = msgpack.unpackb(data)
    except Exception as exc:
        interrupts.pass_on(exc)
        raise ProtocolError(f"{len(data)} bytes are not an error: {exc}") from exc
    if type(error) is not dict:
        raise ProtocolError(f"{len(data)} bytes are not an error but a {type(error).__name__}")
    for key in ("type", "module", "qualname", "message", "traceback"):
        if type(error.get(key)) is not str:
            raise ProtocolError(f"an error without the text {key!r}")
    notes = error.get("notes")
    if type(notes) is not list or not all(type(note) is str for note in notes):
        raise ProtocolError("an error whose notes are not texts")
    return error


def _parts(exc: BaseException, plain: bool, depth: int) -> list[bytes] | None:
    """The members of a group, each by itself: one that cannot be sent costs only itself."""
    if not isinstance(exc, BaseExceptionGroup):
        return None
    if depth >= _GROUP_DEPTH_MAX or len(exc.exceptions) > CHAIN_MAX or not is_modest(exc):
        return None
    parts = [_encode(readable(member), plain, depth + 1) for member in exc.exceptions]
    return parts if sum(map(len, parts)) <= _PARTS_MAX else None


def _from_parts(error: dict[str, Any], plain: bool, depth: int) -> BaseException | None:
    parts = error.get("parts")
    if type(parts) is not list or depth > _GROUP_DEPTH_MAX:
        return None
    if not parts or not all(type(part) is bytes for part in parts):
        raise ProtocolError("an exception group whose parts are not errors")
    text = error.get("group")
    members = [_decode(part, plain, depth + 1) for part in parts]
    text = text if type(text) is str else error["message"]
    if not plain and type(error.get("grouped")) is bytes:
        own = _own_group(error["grouped"], text, members)
        if own is not None:
            return own
    return BaseExceptionGroup(text, members)


def _own_group(pickled: bytes, text: str, members: list[BaseException]) -> BaseException | None:
    """A group of a class of its own again, without a call of its ``__init__``."""
    try:
        kind, state = pickles.load(pickled)
        group: BaseException = BaseExceptionGroup.__new__(kind, text, members)
    except Exception as error:  # noqa: BLE001 - not what _group_kind made, or the class has changed
        interrupts.pass_on(error)
        return None
    return group if _give_state(group, state) else None


def _group_kind(exc: BaseException) -> bytes | None:
    """The class and the attributes of a group that is a subclass; None: it arrives as a group."""
    try:
        state = {name: item for name, item in _state_of(exc).items() if _can_be_sent(item)}
        data, _ = pickles.dump((type(exc), state), in_band=True)
        again = _own_group(data, "", [Exception()])
        return data if type(again) is type(exc) and len(data) <= _PICKLE_MAX else None
    except BaseException:  # noqa: BLE001 - a job may raise what it likes here too
        return None


def _from_args(error: dict[str, Any]) -> BaseException | None:
    args = error.get("args")
    namespace = _BY_NAME.get(error["module"])
    if type(args) is not list or namespace is None:
        return None
    kind = namespace.get(error["qualname"])
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return None
    try:
        return kind(*args)
    except Exception as error:  # noqa: BLE001 - another version of the class
        interrupts.pass_on(error)
        return None


def _from_pickle(pickled: bytes) -> BaseException | None:
    try:
        loaded = pickles.load(pickled)
    except GmpdError:
        return None
    if type(loaded) is not tuple or len(loaded) != 2:
        return None
    exc, args = loaded
    if not isinstance(exc, BaseException):
        return None
    return exc if _set(exc, "args", args) else None


def _decorate(exc: BaseException, error: dict[str, Any]) -> bool:
    """Give ``exc`` its notes and its cause."""
    if error["notes"] and not _set(exc, "__notes__", list(error["notes"])):
        return False
    return _set(exc, "__cause__", RemoteTraceback(error["traceback"]))


def _set(exc: BaseException, name: str, value: object) -> bool:
    # Past a __setattr__ of its own: a frozen dataclass may be an exception.
    try:
        object.__setattr__(exc, name, value)
    except Exception as error:  # noqa: BLE001 - user code
        interrupts.pass_on(error)
        return False
    return True


def _remote_message(error: dict[str, Any]) -> str:
    message, kind = error["message"], error["type"]
    return f"{kind}: {message}" if message else str(kind)


def _plain_args(exc: BaseException, *, cut: bool = False) -> list[Any] | None:
    """The arguments that make ``exc`` again, if it is a known class and they are scalars."""
    kind = type(exc)
    namespace = _BY_NAME.get(attribute_text(kind, "__module__"))
    if namespace is None or namespace.get(kind.__qualname__) is not kind:
        return None
    try:
        reduced: Any = exc.__reduce__()
        state = reduced[2] if len(reduced) > 2 else None
        args = list(_cut(reduced[1]) if cut else reduced[1])
        if reduced[0] is not kind or not all(type(arg) in _SCALARS for arg in args):
            return None
        if set(state or ()) - {"__notes__"} or len(msgpack.packb(args)) > TEXT_MAX:
            return None
        made_args = _cut(exc.args) if cut else exc.args
        same = type(kind(*args)) is kind and kind(*args).args == made_args
    except Exception:  # noqa: BLE001 - then it has to be pickled
        return None
    return args if same else None


def _pickled(exc: BaseException) -> bytes | None:
    """``exc`` with its ``args``, if a pickle of it loads as the same class.

    Its args travel beside it because a class whose ``__init__`` builds the message from its
    arguments would build it a second time from the message.
    """
    try:
        data, _ = pickles.dump((exc, _args_of(exc)), in_band=True)
        if len(data) > _PICKLE_MAX:
            return None
        again = _from_pickle(data)
        same = type(again) is type(exc) and str(again) == str(exc)
        # The builtin __reduce__ forgets what is in slots.
        return data if same and _slots_of(exc).keys() == _slots_of(again).keys() else None
    except BaseException:  # noqa: BLE001 - a job may raise what it likes here too; texts remain
        return None


def _cut(args: Any) -> Any:
    """``args`` with the middle of long texts left out; itself when there are none."""
    if not any(isinstance(arg, str | bytes) and len(arg) > TEXT_MAX for arg in args):
        return args
    return tuple(_cut_one(arg) if isinstance(arg, str | bytes) else arg for arg in args)


def _cut_one(text: str | bytes) -> str | bytes:
    if isinstance(text, str):
        return clean(text)
    if len(text) <= TEXT_MAX:
        return text
    half = TEXT_MAX // 2 - 32
    return text[:half] + b"\n... %d bytes left out ...\n" % (len(text) - 2 * half) + text[-half:]


def _args_of(exc: BaseException) -> tuple[Any, ...]:
    """Past a property of the same name."""
    args: tuple[Any, ...] = BaseException.args.__get__(exc)  # type: ignore[attr-defined]
    return args


def _slots_of(exc: object) -> dict[str, Any]:
    names: list[str] = copyreg._slotnames(type(exc))  # type: ignore[attr-defined]
    return {name: getattr(exc, name) for name in names if hasattr(exc, name)}


def _state_of(exc: BaseException) -> dict[str, Any]:
    """All attributes, in its dict and in slots."""
    state = {**vars(exc), **_slots_of(exc)}
    state.pop("__notes__", None)
    return state


def _give_state(exc: BaseException, state: dict[str, Any]) -> bool:
    """Past a ``__setattr__`` of its own: a frozen dataclass may be an exception."""
    return all(_set(exc, name, value) for name, value in state.items())


def _as_texts(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value if _can_be_sent(value) else _repr(value) for value in values)


def _repr(value: object) -> str:
    try:
        return clean(repr(value), _REPR_MAX)
    except BaseException:  # noqa: BLE001 - user code
        return f"<{attribute_text(type(value), '__qualname__')}>"


def _bare(exc: BaseException, how: _Args) -> tuple[bytes, list[str]] | None:
    """``exc`` for a class whose ``__init__`` cannot be called again: its parts, without a call.

    That is its class, what its builtin base keeps (``errno``, for example), and of its attributes
    those that can be sent; the names of the others come beside. None if ``how`` is of no use.
    """
    try:
        base = _builtin_base(type(exc))
        if base is None:
            return None
        reduced: Any = base.__reduce__(exc)
        state = dict(reduced[2]) if len(reduced) > 2 and reduced[2] else {}
        state.update(_slots_of(exc))
        state.pop("__notes__", None)
        kept = {name: value for name, value in state.items() if _can_be_sent(value)}
        made_with, args = reduced[1], _args_of(exc)
        if how is _Args.CUT:
            cut = _cut(made_with), _cut(args)
            if cut[0] is made_with and cut[1] is args:
                return None
            made_with, args = cut
        elif how is _Args.TEXTS:
            made_with, args = _as_texts(_cut(made_with)), _as_texts(_cut(args))
        data, _ = pickles.dump((type(exc), made_with, args, kept), in_band=True)
        if len(data) > _PICKLE_MAX:
            return None
        again = _from_bare(data)
        if type(again) is not type(exc):
            return None
        if how is _Args.WHOLE and str(again) != str(exc):
            return None
        return data, sorted(map(str, state.keys() - kept.keys()))
    except BaseException:  # noqa: BLE001 - a job may raise what it likes here too; texts remain
        return None


def _from_bare(data: bytes) -> BaseException | None:
    try:
        kind, made_with, args, state = pickles.load(data)
        base = _builtin_base(kind)
        if base is None:
            return None
        exc: BaseException = base.__new__(kind, *made_with)
        base.__init__(exc, *made_with)
        BaseException.args.__set__(exc, args)  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - not what _bare made, or the class has changed
        interrupts.pass_on(error)
        return None
    return exc if _give_state(exc, state) else None


def _builtin_base(kind: Any) -> type[BaseException] | None:
    """The builtin that ``kind`` derives from; None for a group, which needs its members. A
    ``__new__`` of its own is not called, as little as ``__init__``: it may need more than is kept.
    """
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return None
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    return None if issubclass(base, BaseExceptionGroup) else base


def _can_be_sent(value: object) -> bool:
    try:
        data, _ = pickles.dump(value, in_band=True)
        pickles.load(data)
    except Exception:  # noqa: BLE001 - whatever the value's own code raises
        return False
    return len(data) <= _PICKLE_MAX


def _group_text(exc: BaseException) -> str:
    # str(group) ends in "(2 sub-exceptions)", which the group rebuilt adds again.
    return clean(exc.message) if isinstance(exc, BaseExceptionGroup) else ""
