"""One exchange between a bridge and the agent on its host, as bytes.

Both directions number their messages, so an exchange that is repeated, late or lost changes
nothing. A message is a list of frames, as the daemon's sockets take them.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, ValidationError, field
from msgspec.msgpack import Decoder, Encoder

from gmpd.errors import ProtocolError


class Ask(Struct, array_like=True, gc=False):
    """From the bridge. ``number``: of this exchange, from 1 on; 0: to begin a life of the agent."""

    #: The bridge: its agent on the host is found by this.
    bridge: str
    #: The life of the agent that it is for; "" to begin one.
    life: str
    number: int
    #: The agent's clock, as of the last answer that the bridge has.
    echo: float = 0.0
    #: Messages of the agent that the bridge has; ``alone``: no other exchange is on its way, so all
    #: after these are to be said again.
    got: int = 0
    alone: bool = False
    #: How long to wait for messages when there are none, and for more when there is one (seconds).
    wait_s: float = 0.0
    gather_s: float = 0.0
    #: The number of the first of ``messages``.
    first: int = 0
    messages: list[list[bytes]] = field(default_factory=list)
    #: To begin: the settings of the host's daemon.
    settings: dict[str, Any] | None = None
    #: This life is over.
    ends: bool = False


class Told(Struct, array_like=True, gc=False):
    """From the agent."""

    life: str
    #: When this was written, by the agent's clock.
    clock: float
    #: Messages of the bridge that the agent has.
    got: int = 0
    first: int = 0
    messages: list[list[bytes]] = field(default_factory=list)
    #: Why this life has ended, or could not begin; "" while it lasts. Nothing of it runs any more,
    #: once ``EXIT_S`` has passed.
    ended: str = ""
    #: Why the engine is about to end this process; "" while it is not. The bridge has the jobs back
    #: that have not begun here, and ends this life once the others have ended.
    leaves: str = ""
    #: When a life begins: the versions of the host, and the pid of its daemon.
    versions: dict[str, str | int] | None = None
    pid: int = 0


_encode = Encoder().encode
_ask = Decoder(Ask)
_told = Decoder(Told)


def pack(message: Ask | Told) -> bytes:
    """As bytes."""
    return _encode(message)


def read_ask(data: bytes) -> Ask:
    """Raises ProtocolError for what is none."""
    try:
        return _ask.decode(data)
    except (ValidationError, ValueError) as error:
        raise ProtocolError(f"no exchange of this version of gmpd: {error}") from None


def read_told(data: bytes) -> Told:
    """Raises ProtocolError for what is none."""
    try:
        return _told.decode(data)
    except (ValidationError, ValueError) as error:
        raise ProtocolError(f"no answer of this version of gmpd: {error}") from None
