"""ZAP (ZeroMQ RFC 27): which processes may connect, on this machine and from others."""

from __future__ import annotations

import os
from collections.abc import Callable

import zmq

from gmpd.netpoll.sockets import NOBLOCK, Network, is_readable, number_of

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"

#: The ZAP domains of listening sockets: of this machine, and of others. Setting one is what makes
#: libzmq ask the ZapHandler, and refuse greetings that are older than ZMTP 3.
LOCAL = b"gmpd"
NETWORK = b"gmpd-network"

#: Public key and address -> the client's name; empty if the key is unknown.
Admit = Callable[[bytes, str], str]


def _nobody(_public: bytes, _address: str) -> str:
    return ""


class ZapHandler:
    """Admits this user's own processes over ipc, and over a network the owners of known keys.

    The kernel tells libzmq the peer's uid; a socket's file mode alone is not relied upon. CURVE
    alone proves nothing about a client: without this handler any key would do.
    """

    def __init__(self, network: Network, uid: int | None = None, *, admit: Admit = _nobody) -> None:
        self.uid = os.getuid() if uid is None else uid
        self.refused = 0
        self.admit = admit
        self._socket = network.context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(_ZAP_ENDPOINT)
        self.fd = number_of(self._socket, zmq.FD)
        self.stirred = True

    def answer(self) -> None:
        """Answer every waiting question."""
        while self.readable:
            self._answer_one(self._socket.recv_multipart(NOBLOCK))

    @property
    def readable(self) -> bool:
        """Whether a question waits; see ``Source``."""
        self.stirred = found = is_readable(self._socket)
        return found

    def _answer_one(self, frames: list[bytes]) -> None:
        # [route, empty, version, request id, domain, address, identity, mechanism, ...]
        if len(frames) < 8 or frames[2] != b"1.0":
            self.refused += 1
            return
        address = frames[5].decode("ascii", "replace")
        user = self._user(frames[4], address, frames[7], frames[8:])
        self.refused += user is None
        status = (b"200", b"OK") if user is not None else (b"400", b"not admitted")
        name = (user or "").encode()
        self._socket.send_multipart([*frames[:2], b"1.0", frames[3], *status, name, b""])

    def _user(
        self, domain: bytes, address: str, mechanism: bytes, credentials: list[bytes]
    ) -> str | None:
        """The user id of a peer: the name of its key, empty for one of this machine; None: it may
        not come in."""
        if domain == LOCAL:
            return "" if self.allows(address, mechanism) else None
        if domain != NETWORK or mechanism != b"CURVE" or len(credentials) != 1:
            return None
        return self.admit(credentials[0], address) or None

    def allows(self, address: str, mechanism: bytes) -> bool:
        """Whether a peer at ``address`` (ipc: ``localhost:uid:gid:pid``) may come in."""
        parts = address.split(":")
        return mechanism == b"NULL" and len(parts) >= 4 and parts[-3] == str(self.uid)

    def close(self) -> None:
        self._socket.close(0)
