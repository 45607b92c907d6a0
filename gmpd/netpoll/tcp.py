"""The listening end for clients of other machines."""

from __future__ import annotations

from typing import Any

from gmpd.netpoll.links import Router
from gmpd.netpoll.sockets import Frames

#: libzmq's own routing ids have this length and first byte; a peer may choose another for itself.
_ID_BYTES = 5
#: Between the name of a key and a routing id; in no name.
_END = b"\0"


class NetworkPeer(bytes):
    """A client of another machine: the name of its key, a zero byte, and its routing id."""

    @property
    def name(self) -> str:
        """The name of its key."""
        return self.partition(_END)[0].decode()

    @property
    def route(self) -> bytes:
        """Its routing id."""
        return self.partition(_END)[2]


class NetworkRouter(Router):
    """A Router whose peers are ``NetworkPeer``s.

    The name comes with each message, from the handshake of the connection that brought it: no peer
    can speak in another one's name by taking over its routing id. A peer that chose its routing id
    itself is disconnected.
    """

    def recv(self, *, expected: bool = False) -> tuple[bytes, list[Any]] | None:
        """As ``Router.recv``."""
        while (received := super().recv(expected=expected)) is not None:
            route, frames = received
            if len(route) == _ID_BYTES and route[:1] == _END:
                name: str = frames[0].obj.get("User-Id")
                return NetworkPeer(name.encode() + _END + route), frames
            self.cut(self.last_connection())
            expected = False
        return None

    def send(self, peer: bytes, frames: Frames) -> bool:
        """As ``Router.send``."""
        assert isinstance(peer, NetworkPeer)
        return super().send(peer.route, frames)
