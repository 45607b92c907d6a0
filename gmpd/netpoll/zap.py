"""ZAP (ZeroMQ RFC 27): which processes may connect."""

from __future__ import annotations

import os

import zmq

from gmpd.netpoll.sockets import NOBLOCK, Network, is_readable, number_of

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"


class ZapHandler:
    """Admits this user's own processes only, over ipc.

    The kernel tells libzmq the peer's uid; a socket's file mode alone is not relied upon.
    """

    def __init__(self, network: Network, uid: int | None = None) -> None:
        self.uid = os.getuid() if uid is None else uid
        self.refused = 0
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
        allowed = self.allows(frames[5].decode("ascii", "replace"), frames[7])
        self.refused += not allowed
        status = (b"200", b"OK") if allowed else (b"400", b"not this user's process")
        self._socket.send_multipart([*frames[:2], b"1.0", frames[3], *status, b"", b""])

    def allows(self, address: str, mechanism: bytes) -> bool:
        """Whether a peer at ``address`` (ipc: ``localhost:uid:gid:pid``) may come in."""
        parts = address.split(":")
        return mechanism == b"NULL" and len(parts) >= 4 and parts[-3] == str(self.uid)

    def close(self) -> None:
        self._socket.close(0)
