"""Pickle protocol 5 with out-of-band buffers, and cloudpickle where pickle would only send a name.

The one place that pickles and unpickles. Objects that must travel by value (lambdas, closures, and
definitions of ``__main__`` or a function body) go by cloudpickle; the receiver need not know which
of the two wrote the bytes. Never to be reached from coordinator, gateway or command line: loading a
pickle runs code.

A checksum follows the pickle. A damaged one is not merely refused by the unpickler: one flipped bit
in ten thousand makes it crash the process or ask for all memory. It does not protect from an
attacker; that is the transport's task.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import sys
import zlib
from collections.abc import Sequence
from typing import Any

from gmpd import compiled
from gmpd.codec import hosted_programs, interrupts, program_names, sent_program
from gmpd.codec.mentions import STACK_GLOBAL
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
_MP_MAIN = b"\x8c\x0b__mp_main__"
_BOTH_END = b"main__"

#: Where this package is: its own classes refuse to be sent, too.
_OURS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
#: Errors of the unpickler for bytes that are no pickle; a value's own code may raise them too.
_REFUSED_BY_LOADS = (pickle.UnpicklingError, EOFError, IndexError, UnicodeDecodeError)

#: Parts of a program (``drafts.Part``, ``hosted_programs.HostedPart``) that must be loaded
#: before a pickle is.
Needs = tuple[Any, ...]


def dump(value: object, *, in_band: bool = False) -> tuple[bytes, tuple[memoryview, ...]]:
    """Pickle ``value``; with ``in_band`` every buffer stays inside the bytes.

    The buffers are views of the caller's memory. Raises whatever the value's own methods raise.
    """
    data, buffers, _ = dump_needing(value, in_band=in_band)
    return data, buffers


def dump_needing(
    value: object, *, in_band: bool = False
) -> tuple[bytes, tuple[memoryview, ...], Needs]:
    """As ``dump``, with the parts of the program that the other side must have first."""
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
    except Exception as error:
        interrupts.pass_on(error)
        if is_own_error(error):
            raise
        data = b""  # cloudpickle has the last word
    if data and not (_names_main(data) or _has_managers(data) or _sends_modules_by_value()):
        needs = _needs_of(data) if STACK_GLOBAL in data else ()
        if not _sends_modules_by_value():  # else that was found out just now
            return _summed(data), tuple(buffers), needs
    hosted = hosted_programs.current()
    if hosted is not None:
        if not data:
            buffers.clear()
            data = _by_hand(value, hosted_programs.HostedNames(hosted), callback)
        return (
            _summed(hosted_programs.mark(data, hosted.id)),
            tuple(buffers),
            tuple(hosted.parts.values()),
        )
    buffers.clear()
    data, required = _by_value(value, callback)
    return data, tuple(buffers), () if required is None else required.needs


def _names_main(data: bytes) -> bool:
    # One search for both, as most data has neither.
    return _BOTH_END in data and (_MAIN in data or _MP_MAIN in data)


def dump_function(fn: object) -> tuple[bytes, Needs, sent_program.Watch]:
    """A function by value, and the check that its bytes are still valid."""
    hosted = hosted_programs.current()
    if hosted is not None:
        data, _, needs = dump_needing(fn, in_band=True)
        return data, needs, ()
    data, required = _by_value(fn, None)
    return (data, (), ()) if required is None else (data, required.needs, required.watch())


def _by_value(value: object, callback: Any) -> tuple[bytes, sent_program.Required | None]:
    """A pickle with the names of this program that it uses, defined."""
    program = sent_program.THIS_PROGRAM
    names = program_names.NameCollector()
    data = _by_hand(value, names, callback)
    if _has_managers(data):
        names.keys.add((hosted_programs.AUTHKEY, ""))
    uses = names.names_anything
    names.keys |= program_names.origins_in(data)
    if not uses:
        return _summed(data), program.require_origins(names.keys) if names.keys else None
    required = program.require(names.keys, names.assigned)
    return _summed(hosted_programs.mark(data, program.id)), required


def _needs_of(data: bytes) -> Needs:
    """Places of the modules that a pickle names; the pickle names nothing of the program."""
    compared = program_names.origins_in(data)
    return sent_program.THIS_PROGRAM.require_origins(compared).needs if compared else ()


def _by_hand(value: object, names: Any, callback: Any) -> bytes:
    from gmpd.codec.cloud import CloudPickler

    sink = io.BytesIO()
    CloudPickler(sink, names, callback).dump(value)
    return sink.getvalue()


def _summed(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(_SUM, "little")


def _has_managers(data: bytes) -> bool:
    return program_names.has_managers() and hosted_programs.MANAGERS in data


def load(data: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Undo ``dump``.

    A buffer that the sender could write is writable here: a read-only one is copied, a writable
    one becomes the value's own memory. Raises ProtocolError when the bytes are not what ``dump``
    makes, Unserializable when they are but the value cannot be rebuilt here; an UnpicklingError
    of the value's own code as it is.
    """
    _check(data)
    supply = iter([_writable(buffer) for buffer in buffers])
    ident = hosted_programs.marked(data)
    try:
        if ident is None or ident == sent_program.THIS_PROGRAM.id:
            value = pickle.loads(data, buffers=supply)
        else:
            value = _load_as(ident, data, supply)
    except _REFUSED_BY_LOADS as exc:
        interrupts.pass_on(exc)
        if _is_of_user_code(exc):  # the bytes are as they were sent, and the value's own code ran
            if isinstance(exc, pickle.UnpicklingError):
                raise
            raise Unserializable(cannot_rebuild(exc)) from exc
        raise ProtocolError(f"a pickle of {len(data)} bytes does not load: {exc}") from exc
    except MemoryError as exc:
        interrupts.pass_on(exc)
        raise Unserializable(f"a value of {len(data)} bytes does not fit into memory here") from exc
    except (Exception, SystemExit) as exc:
        interrupts.pass_on(exc)
        raise Unserializable(cannot_rebuild(exc)) from exc
    if next(supply, None) is not None:
        raise ProtocolError(f"{len(buffers)} buffers came with a value that needs fewer")
    return value


def is_own_error(exc: BaseException | None) -> bool:
    """Whether a value's own method raised it while it was pickled, or the handler of a signal.

    What the pickler itself refuses, cloudpickle may know how to take apart; and so it may where a
    class refuses by PicklingError, as loggers do.
    """
    return (
        isinstance(exc, Exception)
        and not isinstance(exc, pickle.PicklingError)
        and _is_of_user_code(exc)
    )


def own_error(refusal: BaseException) -> BaseException:
    """For a refusal to send something, the error of the value's own method that led to it, with the
    refusal's words as a note. Everything else as it is."""
    own = refusal.__cause__
    if own is None or not isinstance(refusal, Unserializable) or not is_own_error(own):
        return refusal
    try:
        own.add_note(str(refusal))
    except Exception:  # noqa: BLE001 - the user's class, which may refuse notes
        return own
    return own


def _is_of_user_code(exc: BaseException) -> bool:
    """Whether it was raised in a Python frame that is no pickler's: theirs are written in C."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    file = compiled.source_file(trace.tb_frame.f_code.co_filename)
    cloudpickle = getattr(sys.modules.get("cloudpickle"), "__file__", None)
    return not file.startswith(
        (_OURS, copyreg.__file__, os.path.dirname(cloudpickle) if cloudpickle else _OURS)
    )


def _load_as(ident: bytes, data: Buffer, supply: Any) -> Any:
    """Load a value that refers to names of another program."""
    hosted = hosted_programs.of(ident)
    if hosted is None:
        raise Unserializable("the program whose script defined a value has ended")
    with hosted_programs.entering(hosted):
        if hosted.authkey is None or hosted_programs.MANAGERS not in bytes(data):
            return pickle.loads(data, buffers=supply)
        with hosted_programs.keyed(hosted):
            return pickle.loads(data, buffers=supply)


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


def cannot_rebuild(exc: BaseException) -> str:
    """Why a value did not load, and how to mend it."""
    text = f"a value cannot be rebuilt here: {type(exc).__name__}: {exc}"
    if isinstance(exc, ImportError | AttributeError):
        text += " (both sides need the same code: install the module there, or send plain data)"
    return text


def _sends_modules_by_value() -> bool:
    """Whether the user asked for it with ``cloudpickle.register_pickle_by_value``."""
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())
