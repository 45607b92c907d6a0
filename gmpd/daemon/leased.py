"""Which jobs a worker's leases are of: their ids and the numbers of their attempts, for logs.

A message of leases brings them in one piece, and no lease unpacks its own before it is asked for:
few jobs log, and all of them would pay. Counterparts: ``effects``, which sends them, and
``runtime.log_records``, which asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import error, pack

from gmpd import protocol

#: Bytes with which the ids of one client's jobs begin; they end with the number of the job.
PREFIX_BYTES = 12
#: No job has this id.
_NONE = bytes(16)


def volatile_ids(key: str, seqs: Sequence[int]) -> bytes | None:
    """Ids of jobs of the session ``key`` (in hex) as ``Assign.ids``; None if it gives its jobs no
    ids of the usual length."""
    if len(key) != 2 * PREFIX_BYTES:
        return None
    form = f">{len(seqs)}I"
    try:
        low = pack(form, *seqs)
    except error:  # beyond 32 bits
        low = pack(form, *[seq & 0xFFFFFFFF for seq in seqs])
    return bytes.fromhex(key) + low


class Leased:
    """The leases of one message."""

    __slots__ = ("_attempts", "_first", "_ids", "_root", "_rows", "client")

    def __init__(self, message: protocol.Assign) -> None:
        self._first = message.first_token
        self._rows = len(message.payloads)
        self._ids = message.ids
        self._attempts = message.attempts
        #: The client that may be told the values.
        self.client = message.client
        options = message.options
        #: Of children: the job that they belong to.
        self._root = None if options is None or options.child is None else options.root

    def seq(self, token: int) -> int:
        """The number of the job at the client that may be told its value."""
        assert self._ids is not None
        at = PREFIX_BYTES + 4 * (token - self._first)
        return int.from_bytes(self._ids[at : at + 4], "big")

    def identity(self, token: int) -> tuple[bytes, int]:
        """The id of a lease's job and the number of its attempt; of a child, those of the job that
        it belongs to. Without an id: ``b""``."""
        if self._root is not None:
            return self._root
        row, ids = token - self._first, self._ids
        attempt = 1 if self._attempts is None else self._attempts[row]
        if ids is None:
            return b"", attempt
        if len(ids) == 16 * self._rows:
            own = ids[16 * row : 16 * row + 16]
        else:
            at = PREFIX_BYTES + 4 * row
            own = ids[:PREFIX_BYTES] + ids[at : at + 4]
        return (b"" if own == _NONE else own), attempt
