"""CURVE: pairs of keys, and the options of a socket that encrypts, and that knows its peer.

Keys go in and out as 32 bytes. The names of clients, and which of them may come in, are the
``ZapHandler``'s.
"""

from __future__ import annotations

from typing import NamedTuple

import zmq
from zmq.utils import z85

#: A silent connection is asked for a sign of life this often, and ended when none comes in time
#: (ms): a machine that was switched off says nothing.
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 10_000, 30_000

#: The pause between two attempts to connect, and the longest (ms): a daemon that refuses this
#: client's key is not to be kept busy.
RECONNECT_MS, RECONNECT_MAX_MS = 200, 1_000


class CurveKeys(NamedTuple):
    """Keys of a client: the public key that its server must have, and its own secret."""

    server: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"<CurveKeys for {self.server.hex()[:8]}>"


def new_secret() -> bytes:
    """A secret key."""
    _, secret = zmq.curve_keypair()
    return z85.decode(secret)


def public_of(secret: bytes) -> bytes:
    """The public key of a secret one."""
    return z85.decode(zmq.curve_public(z85.encode(secret)))


def be_server(socket: zmq.Socket[bytes], secret: bytes) -> None:
    """Before it is bound: it takes peers that encrypt for this key."""
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_SECRETKEY, secret)
    _watch(socket)


def be_client(socket: zmq.Socket[bytes], keys: CurveKeys) -> None:
    """Before it is connected: it talks to the owner of that server key only."""
    socket.set(zmq.CURVE_SERVERKEY, keys.server)
    socket.set(zmq.CURVE_PUBLICKEY, public_of(keys.secret))
    socket.set(zmq.CURVE_SECRETKEY, keys.secret)
    socket.set(zmq.IPV6, 1)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    _watch(socket)


def _watch(socket: zmq.Socket[bytes]) -> None:
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.set(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
