"""Values, calls and results as bytes, and back with their type.

msgpack carries what it carries exactly: scalars of the exact builtin types, and short flat lists
and dicts of those. Everything else is a pickle (pickles.py), so a tuple comes back as a tuple and
``[a, a]`` as one object twice. The first byte tells which: 0x80 is a pickle, 0xc1 several values
that travel as one (``Parts``), anything else msgpack.
*Plain* values (the command line, untrusted transports) are msgpack always: see plain.py.

This module knows nothing of jobs, sockets and limits of size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgpack

from gmpd.codec import detached, diagnose, interrupts, pickles, plain
from gmpd.codec.pickles import PICKLE_TAG, Buffer
from gmpd.errors import ProtocolError, Unserializable


class Blob(NamedTuple):
    """A value on its way: ``data``, and ``buffers`` to be sent as frames of their own.

    Buffers are views of the caller's memory (a NumPy array): what changes there before they are
    sent, changes what arrives. Send or copy them before the caller gets control back.
    """

    data: bytes
    buffers: tuple[Buffer, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes in all, for limits."""
        if not self.buffers:
            return len(self.data)
        return len(self.data) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    @property
    def needs(self) -> pickles.Needs:
        """Parts of a program that must be there before this can be decoded."""
        return ()

    def with_data(self, data: bytes) -> Blob:
        """The same with other data."""
        return Blob(data, self.buffers)


class _NeedyBlob(Blob):
    """A blob that refers to names of a script."""

    parts: pickles.Needs = ()

    @property
    def needs(self) -> pickles.Needs:
        return self.parts

    def with_data(self, data: bytes) -> Blob:
        blob = _NeedyBlob(data, self.buffers)
        blob.parts = self.parts
        return blob


#: Types that msgpack restores exactly; subclasses (bool can have none) do not count.
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
#: Flat containers up to this length are proved item by item: beyond it pickle is as fast.
_FLAT_MAX = 64
#: Longer texts inside a container go by pickle, which writes one that occurs twice only once.
_FLAT_TEXT_MAX = 1024
#: A packer keeps the largest buffer that it ever needed: after a bigger one it is thrown away.
_PACKER_KEEPS = 64 * 1024

_LARGE = detached.LARGE

#: First bytes of a call: array of [args, kwargs], and of [args, kwargs, plain].
_CALL = 0x92
_PLAIN_CALL = 0x93
#: First byte of values in parts: msgpack never uses it.
_PARTS = 0xC1
#: An empty map in msgpack's long form, as its short form is PICKLE_TAG.
_EMPTY_MAP = b"\xde\x00\x00"

_REFUSED_BY_PACK = (OverflowError, UnicodeEncodeError, ValueError)
_REFUSED_BY_UNPACK = (
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    MemoryError,
    BufferError,
    msgpack.exceptions.UnpackException,
)

_blob: Callable[[tuple[bytes, tuple[Buffer, ...]]], Blob] = partial(tuple.__new__, Blob)
_NONE = Blob(b"\xc0")
_unpack = msgpack.unpackb


def _new_pack() -> Callable[[Any], bytes]:
    # One packer for all threads: given exact scalars only, the C packer runs no Python code and so
    # never gives up the GIL midway. The pure Python one has no such promise.
    if msgpack.Packer.__module__ == "msgpack._cmsgpack":
        return msgpack.Packer(autoreset=True, buf_size=4096).pack  # type: ignore[no-any-return]
    return msgpack.packb  # type: ignore[no-any-return]


_pack = _new_pack()


def _shrink_packer() -> None:
    global _pack
    _pack = _new_pack()


def encode(value: object) -> Blob:
    """Any value as bytes. Raises Unserializable with the path to the part that cannot be sent."""
    blob = _encode_msgpack(value)
    return _encode_pickle(value, "value", "the value") if blob is None else blob


def decode(data: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Undo ``encode`` and ``encode_result``.

    Raises ProtocolError for bytes that neither made, Unserializable for a value whose code is
    missing or fails here. A writable buffer becomes the value's own memory; decode it once only.
    """
    if len(data) and data[0] == PICKLE_TAG:
        return pickles.load(data, buffers)
    if len(data) and data[0] == _PARTS:
        if not detached.is_detached(data):
            return _decode_parts(data, buffers)
        value = _attach(data, buffers)
        return decode(value.data, value.buffers) if type(value) is detached.Rest else value
    return _unpack_value(data)


def encode_call(
    fn_name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    fn: Callable[..., Any] | None = None,
    plain: bool = False,
) -> Blob:
    """The arguments of one call as bytes.

    ``fn`` only serves to name a parameter when something cannot be sent; ``plain`` allows nothing
    but msgpack. Raises Unserializable naming function, argument and the path inside.
    """
    if plain:
        return _encode_plain_call(fn_name, args, kwargs, fn)
    for value in args:
        kind = type(value)
        if kind not in _SCALARS:
            return _encode_pickled_call(fn_name, args, kwargs, fn)
        if (kind is bytes or kind is str) and len(value) > _LARGE:
            return _encode_large_call(fn_name, args, kwargs, fn)
    if kwargs:
        for value in kwargs.values():
            if type(value) not in _SCALARS:
                return _encode_pickled_call(fn_name, args, kwargs, fn)
    try:
        data = _pack((args, kwargs))
    except _REFUSED_BY_PACK as error:
        interrupts.pass_on(error)
        return _encode_pickled_call(fn_name, args, kwargs, fn)
    if len(data) > _PACKER_KEEPS:
        _shrink_packer()
        return _blob(_detached_again(args, kwargs, data))
    return _blob((data, ()))


def _encode_large_call(
    fn_name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    fn: Callable[..., Any] | None,
) -> Blob:
    if not all(type(value) in _SCALARS for value in (*args, *kwargs.values())):
        return _encode_pickled_call(fn_name, args, kwargs, fn)
    try:
        return _blob(detached.call(args, kwargs))
    except _REFUSED_BY_PACK as error:
        interrupts.pass_on(error)
        return _encode_pickled_call(fn_name, args, kwargs, fn)


def _detached_again(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], data: bytes
) -> tuple[bytes, tuple[Buffer, ...]]:
    """A call of which only a named argument can be large."""
    if any(detached.is_large(value, type(value)) for value in kwargs.values()):
        return detached.call(args, kwargs)
    return data, ()


def decode_call(
    data: Buffer, buffers: Sequence[Buffer] = ()
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Undo ``encode_call``; raises as ``decode`` does."""
    try:
        if data[0] == _CALL:
            args, kwargs = _unpack(data, use_list=False)
            if type(args) is tuple and type(kwargs) is dict:
                return args, kwargs
    except _REFUSED_BY_UNPACK as exc:
        interrupts.pass_on(exc)
        raise _not_msgpack(data, exc) from exc
    return _decode_other_call(data, buffers)


class Parts(NamedTuple):
    """Encoded values that travel as one. Each has frames of its own, so only one by one are they to
    be below the limit of a frame. ``encode_result`` makes one value of it, ``decode`` undoes it.
    """

    parts: list[Blob]


class OrElse:
    """A result, and a function that makes its replacement if it cannot be sent.

    ``other`` is called with the bytes that a part may have, None: as many as it likes.
    """

    __slots__ = ("other", "value")

    def __init__(self, value: object, other: Callable[[int | None], object]) -> None:
        self.value = value
        self.other = other


def encode_result(value: object, *, plain: bool = False) -> Blob:
    """A job's return value as bytes. Raises Unserializable with the path to the bad item."""
    if value is None:
        return _NONE
    blob = _encode_msgpack(value, plain)
    if blob is not None:
        return blob
    if isinstance(value, OrElse):
        try:
            return encode_result(value.value, plain=plain)
        except Unserializable:
            return encode_result(value.other(None), plain=plain)
    if isinstance(value, Parts):
        counts = _pack([len(part.buffers) for part in value.parts])
        frames = [frame for part in value.parts for frame in (part.data, *part.buffers)]
        return Blob(bytes([_PARTS]) + counts, tuple(frames))
    if plain:
        return Blob(_pack_plain(value, "result", "the result"))
    return _encode_pickle(value, "result", "the result")


def scalar_result(value: object) -> bytes:
    """The data of ``encode_result`` for None, bool, int and float, which need no buffers."""
    try:
        return _pack(value)
    except _REFUSED_BY_PACK:  # a long int
        return encode_result(value).data


def to_plain(data: Buffer) -> Any:
    """Decode msgpack only: for processes that must never unpickle.

    The result is made of None, bool, int, float, str, bytes, list and dict. Raises Unserializable
    for a pickle, ProtocolError for garbage.
    """
    if is_plain(data):
        return _unpack_value(data)
    raise Unserializable(
        "the value is a Python object (a pickle), which only a Python client may open: "
        "read it with gmpd.Client().job(id).result(), or let the job return plain data"
    )


def is_plain(data: Buffer) -> bool:
    """Whether ``data`` can be read without unpickling."""
    return not len(data) or data[0] != PICKLE_TAG


def _encode_msgpack(value: Any, plain: bool = False) -> Blob | None:
    """``value`` as msgpack if it is certain to come back the same, else None."""
    kind = type(value)
    if kind not in _SCALARS and not _is_flat(value, kind):
        return None
    try:
        if (kind is bytes or kind is str) and len(value) > _LARGE and not plain:
            return _blob(detached.scalar(value))
        data = _pack(value)
    except _REFUSED_BY_PACK as error:
        interrupts.pass_on(error)
        return None
    if len(data) > _PACKER_KEEPS:
        _shrink_packer()
    elif len(data) == 1 and data[0] == PICKLE_TAG:
        data = _EMPTY_MAP
    return _blob((data, ()))


def _is_flat(value: Any, kind: type) -> bool:
    if kind is list:
        return len(value) <= _FLAT_MAX and all(map(_is_short_scalar, value))
    if kind is dict:
        return (
            len(value) <= _FLAT_MAX
            and all(type(key) is str for key in value)
            and all(map(_is_short_scalar, value.values()))
        )
    return False


def _is_short_scalar(value: Any) -> bool:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) <= _FLAT_TEXT_MAX
    return kind in _SCALARS


def _encode_pickle(value: object, root: str, what: str) -> Blob:
    try:
        return Blob(*detached.whole(*pickles.dump(value)))
    except Exception as exc:
        interrupts.pass_on(exc)
        raise Unserializable(
            f"{what} cannot be sent: {diagnose.explain(value, root, exc)}"
        ) from exc


def _encode_pickled_call(
    fn_name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    fn: Callable[..., Any] | None,
) -> Blob:
    try:
        packed, views, needs = pickles.dump_needing((args, kwargs))
        data, buffers = detached.whole(packed, views)
    except Exception as exc:
        interrupts.pass_on(exc)
        raise Unserializable(diagnose.explain_call(fn_name, fn, args, kwargs, exc)) from exc
    if not needs:
        return Blob(data, buffers)
    blob = _NeedyBlob(data, buffers)
    blob.parts = needs
    return blob


def _encode_plain_call(
    fn_name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    fn: Callable[..., Any] | None,
) -> Blob:
    plain_args: list[Any] = []
    plain_kwargs: dict[str, Any] = {}
    for position, value in enumerate(args):
        name, what = diagnose.name_argument(fn_name, fn, position)
        plain_args.append(_to_plain_tree(value, name, what))
    for key, value in kwargs.items():
        plain_kwargs[key] = _to_plain_tree(value, key, f"argument {key!r} of {fn_name}()")
    try:
        return Blob(msgpack.packb((plain_args, plain_kwargs, True)))
    except _REFUSED_BY_PACK as exc:
        interrupts.pass_on(exc)
        raise Unserializable(f"the arguments of {fn_name}() cannot be sent plain: {exc}") from exc


def _to_plain_tree(value: object, root: str, what: str) -> Any:
    try:
        return plain.simplify(value)
    except plain.NotPlain as exc:
        path = diagnose.shorten(root + "".join(exc.path))
        raise Unserializable(f"{what} cannot be sent plain: {path} {exc.reason}") from None


def _pack_plain(value: object, root: str, what: str) -> bytes:
    tree = _to_plain_tree(value, root, what)
    try:
        data: bytes = msgpack.packb(tree)
    except _REFUSED_BY_PACK as exc:
        interrupts.pass_on(exc)
        raise Unserializable(f"{what} cannot be sent plain: {exc}") from exc
    return data if data[0] != PICKLE_TAG else _EMPTY_MAP


def _decode_parts(data: Buffer, buffers: Sequence[Buffer]) -> Parts:
    counts = _unpack_value(data[1:])
    if not (type(counts) is list and all(type(n) is int and n >= 0 for n in counts)):
        raise ProtocolError(f"{len(data)} bytes are not a value in parts")
    if sum(counts) + len(counts) != len(buffers):
        raise ProtocolError(f"{len(buffers)} frames came with a value in {len(counts)} parts")
    parts: list[Blob] = []
    at = 0
    for count in counts:
        own: Sequence[Any] = buffers[at : at + count + 1]
        parts.append(Blob(own[0], tuple(own[1:])))
        at += count + 1
    return Parts(parts)


def _attach(data: Buffer, buffers: Sequence[Buffer]) -> Any:
    try:
        return detached.read(data, buffers)
    except _REFUSED_BY_UNPACK as exc:
        interrupts.pass_on(exc)
        raise _not_msgpack(data, exc) from exc


def _unpack_value(data: Buffer) -> Any:
    try:
        return _unpack(data, ext_hook=_refuse_extension)
    except _REFUSED_BY_UNPACK as exc:
        interrupts.pass_on(exc)
        raise _not_msgpack(data, exc) from exc


def _refuse_extension(code: int, _: bytes) -> Any:
    raise ValueError(f"extension type {code} is not used here")


#: First bytes of values that ``unpack_plain`` does not open; of none at all, too.
NO_MSGPACK = frozenset({bytes([PICKLE_TAG]), bytes([_PARTS]), b""})

#: ``decode`` for others, in one call of C: raises whatever msgpack does.
unpack_plain: Callable[[bytes], Any] = partial(_unpack, ext_hook=_refuse_extension)


def _decode_other_call(
    data: Buffer, buffers: Sequence[Buffer]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if data[0] == PICKLE_TAG:
        call = pickles.load(data, buffers)
    elif detached.is_detached(data):
        call = _attach(data, buffers)
        if type(call) is detached.Rest:
            return decode_call(call.data, call.buffers)
    elif data[0] == _PLAIN_CALL:
        args, kwargs, _ = _unpack_value(data)
        call = (tuple(args) if type(args) is list else args, kwargs)
    else:
        call = None
    if not (
        type(call) is tuple and len(call) == 2 and type(call[0]) is tuple and type(call[1]) is dict
    ):
        raise ProtocolError(f"{len(data)} bytes are not the arguments of a call")
    return call


def _not_msgpack(data: Buffer, exc: Exception) -> ProtocolError:
    return ProtocolError(f"{len(data)} bytes are not a value: {type(exc).__name__}: {exc}")
