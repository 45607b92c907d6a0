"""Refuses calls that no message can carry, before they are kept; the errors behind a Refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, assert_never

from gmpd import protocol
from gmpd.errors import (
    DaemonUnreachable,
    NotAllowed,
    NotRegistered,
    ProtocolError,
    Unserializable,
)
from gmpd.protocol import Refusal
from gmpd.submit.batch import Options

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import Blob, FunctionRef

#: How plain arguments begin (``codec.values``).
PLAIN_CALL = b"\x93"


def check_packs(ref: FunctionRef, what: str, pack: Callable[[], object]) -> None:
    try:
        pack()
    except Exception as error:
        raise Unserializable(
            f"{what} {ref.name!a} cannot be sent: {type(error).__name__}: {str(error)!a}"
        ) from error


def check_far(info: protocol.DaemonInfo, ref: FunctionRef, blob: Blob) -> None:
    """Raises NotAllowed, NotRegistered and Unserializable for a call that a daemon on another
    machine would refuse."""
    if info.role == "read":
        raise NotAllowed("this client's key has the role read, which submits no jobs")
    if ref.kind != "name":
        raise NotRegistered(
            f"{ref.name} cannot be sent to another machine, where functions go by name: put it into"
            " a module that the daemon there imports (`gmpd serve --import MODULE`), and mark it"
            " with @gmpd.job"
        )
    if info.plain and blob.data[:1] != PLAIN_CALL:
        raise Unserializable(f"the arguments of {ref.name} are not plain data")


def pack_options(options: Options) -> None:
    protocol.pack(protocol.Submit(0, 1, protocol.options(options), [], None))


def raise_refused(message: protocol.Refused) -> None:
    """Raise a Refused's error: DaemonUnreachable where there is no room, else ProtocolError."""
    match message.code:
        case Refusal.VERSION:
            raise ProtocolError(
                f"the daemon refused this client: {message.reason} (it speaks protocol versions"
                f" {message.version_min} to {message.version_max}, this gmpd {protocol.VERSION_MIN}"
                f" to {protocol.VERSION}): install the same gmpd on both sides, and restart the"
                " daemon (`gmpd down` ends one of any version)"
            )
        case Refusal.SESSIONS:
            raise DaemonUnreachable(
                f"the daemon takes no more clients: {message.reason}: close some, or raise it"
            )
        case Refusal.INCOMPATIBLE:
            raise ProtocolError(f"the daemon refused this client: {message.reason}")
        case Refusal.MALFORMED:
            raise ProtocolError(f"the daemon refused a message of this client: {message.reason}")
        case Refusal.FAILED:
            raise ProtocolError(
                f"the daemon disconnected this client: {message.reason}. Its log says more"
            )
        case Refusal.NOT_ALLOWED:
            raise NotAllowed(f"the daemon refuses this client: {message.reason}")
        case _:
            assert_never(message.code)


def check_scalars(method: str, params: dict[str, Any]) -> dict[str, protocol.Scalar]:
    """Check the parameters of a question. TypeError for types that the daemon would refuse."""
    for name, value in params.items():
        if type(value) not in (type(None), bool, int, float, str):
            raise TypeError(f"{method}({name}={value!r}): must be a number, a text, a flag or None")
    return params


def check_size(ref: FunctionRef, blob: Blob, limit: int, *, far: bool) -> None:
    """Raises Unserializable for a call or a function of more than ``limit`` bytes; 0: none.
    ``far``: the limit is that for other machines."""
    key = "tcp.value_bytes" if far else "limits.value_bytes"
    if limit and blob.nbytes > limit:
        raise Unserializable(
            f"the arguments of {ref.name}() have {blob.nbytes} bytes, {key} allows"
            f" {limit}: write them to a file and send the path"
        )
    if limit and len(ref.payload) > limit:
        raise Unserializable(
            f"the function {ref.name}() with what it refers to has {len(ref.payload)} bytes,"
            f" {key} allows {limit}: let it load what it needs"
        )
