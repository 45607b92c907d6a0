"""Pickle protocol 5 with out-of-band buffers, and cloudpickle where pickle would only send a name.

The one place that pickles and unpickles. What must travel by value (lambdas, closures, whatever
``__main__`` or a function body defines) goes by cloudpickle; the receiver need not know which of
the two wrote the bytes. Never to be reached from coordinator, gateway or command line: loading a
pickle runs code.

A checksum follows the pickle. A damaged one is not merely refused by the unpickler: one flipped bit
in ten thousand makes it crash the process or ask for all memory. It is no protection from somebody
who means harm; that is a question of transports.
"""

from __future__ import annotations

import io
import pickle
import sys
import weakref
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from gmpd.errors import ProtocolError, Unserializable

Buffer = bytes | bytearray | memoryview

#: The PROTO opcode, first byte of every pickle since protocol 2. As msgpack it would be an empty
#: map, which values.py never writes in that form: so one byte tells the two formats apart.
PICKLE_TAG = 0x80
_PROTOCOL = 5
#: Bytes of the CRC-32 (little endian) after the STOP opcode, where the unpickler does not look.
_SUM = 4

#: Smaller buffers stay inside: a frame of its own costs about as much as copying this much.
OUT_OF_BAND_MIN = 4096
#: A message of more frames costs more in ZeroMQ than the copies saved; the rest stays inside.
OUT_OF_BAND_MAX = 64

#: How protocol 5 writes the module name of anything that ``__main__`` defines. A value that merely
#: contains this text takes the slower way for nothing, which is harmless.
_MAIN = b"\x8c\x08__main__"

#: Classes that this process defined and has sent by value.
_home: weakref.WeakSet[type] = weakref.WeakSet()
#: Classes that came in by value.
_foreign: weakref.WeakSet[type] = weakref.WeakSet()
_cloud_pickler: Any = None


def dump(value: object, *, in_band: bool = False) -> tuple[bytes, tuple[memoryview, ...]]:
    """Pickle ``value``; with ``in_band`` every buffer stays inside the bytes.

    The buffers are views of the caller's memory. Raises whatever the value's own methods raise.
    """
    buffers: list[memoryview] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND_MIN or len(buffers) >= OUT_OF_BAND_MAX:
            return True
        buffers.append(view)
        return False

    callback = None if in_band else keep_inside
    try:
        data = pickle.dumps(value, _PROTOCOL, buffer_callback=callback)
        if _MAIN not in data and not _sends_modules_by_value():
            return data + zlib.crc32(data).to_bytes(_SUM, "little"), tuple(buffers)
    except Exception:  # noqa: BLE001, S110 - user code; cloudpickle has the last word
        pass
    buffers.clear()
    sink = io.BytesIO()
    _cloud_pickler_class()(sink, _PROTOCOL, callback).dump(value)
    sink.write(zlib.crc32(sink.getbuffer()).to_bytes(_SUM, "little"))
    return sink.getvalue(), tuple(buffers)


def load(data: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Undo ``dump``.

    A buffer that the sender could write is writable here: a read-only one is copied, a writable
    one becomes the value's own memory. Raises ProtocolError when the bytes are not what ``dump``
    makes, Unserializable when they are but the value cannot be rebuilt here.
    """
    _check(data)
    supply = iter([_writable(buffer) for buffer in buffers])
    try:
        value = pickle.loads(data, buffers=supply)
    except (pickle.UnpicklingError, EOFError, IndexError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"a pickle of {len(data)} bytes does not load: {exc}") from exc
    except MemoryError as exc:
        raise Unserializable(f"a value of {len(data)} bytes does not fit into memory here") from exc
    except (Exception, SystemExit) as exc:
        raise Unserializable(_cannot_rebuild(exc)) from exc
    if next(supply, None) is not None:
        raise ProtocolError(f"{len(buffers)} buffers came with a value that needs fewer")
    return value


def _check(data: Buffer) -> None:
    size = len(data)
    if size <= _SUM + 2 or data[0] != PICKLE_TAG or data[1] != _PROTOCOL:
        raise ProtocolError(f"{size} bytes are not a pickle of protocol {_PROTOCOL}")
    if zlib.crc32(memoryview(data)[:-_SUM]) != int.from_bytes(data[-_SUM:], "little"):
        raise ProtocolError(f"a pickle of {size} bytes is cut short or damaged: wrong checksum")


def _writable(buffer: Buffer) -> Buffer:
    if isinstance(buffer, bytearray):
        return buffer
    if isinstance(buffer, memoryview) and not buffer.readonly:
        return buffer
    return bytearray(buffer)


def _cannot_rebuild(exc: BaseException) -> str:
    text = f"a value cannot be rebuilt here: {type(exc).__name__}: {exc}"
    if isinstance(exc, ImportError | AttributeError):
        text += " (both sides need the same code: install the module there, or send plain data)"
    return text


def _sends_modules_by_value() -> bool:
    """Whether the user asked for it with ``cloudpickle.register_pickle_by_value``."""
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def _cloud_pickler_class() -> Any:
    # Made on first use: importing cloudpickle costs more than everything else in this file.
    global _cloud_pickler
    if _cloud_pickler is None:
        _cloud_pickler = _make_cloud_pickler()
    return _cloud_pickler


def _make_cloud_pickler() -> Any:
    from cloudpickle import cloudpickle

    overwrite: Callable[[type, Any], type] = cloudpickle._class_setstate

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
        """cloudpickle where it keeps the type, and a class that comes home is left as it is.

        cloudpickle finds the original class again when a value of a ``__main__`` class returns, so
        isinstance holds; but then it sets every attribute of that class from the copy: methods
        lose their module's globals and changed class attributes change back. It also turns a file
        into a StringIO of its contents and a memoryview into bytes.
        """

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is memoryview:
                return make_view, (pickle.PickleBuffer(obj), obj.format, obj.shape)
            if isinstance(obj, io.TextIOWrapper) and obj not in (sys.stdout, sys.stderr):
                raise TypeError(f"cannot pickle {type(obj).__name__!r} object")
            reduced = super().reducer_override(obj)
            if type(reduced) is tuple and len(reduced) == 6 and reduced[5] is overwrite:
                if obj not in _foreign:
                    _home.add(obj)
                return (*reduced[:5], set_class_state)
            return reduced

    return CloudPickler


def make_view(buffer: Buffer, form: str, shape: tuple[int, ...]) -> memoryview:
    """A memoryview again, with its items and dimensions."""
    view = memoryview(buffer).cast("B")
    return view if form == "B" and len(shape) == 1 else view.cast(form, shape)  # type: ignore[call-overload]


def set_class_state(cls: type, state: Any) -> type:
    """Fill a class that came in by value; one that was born here keeps its own state."""
    if cls not in _home:
        from cloudpickle import cloudpickle

        _foreign.add(cls)
        cloudpickle._class_setstate(cls, state)
    return cls
