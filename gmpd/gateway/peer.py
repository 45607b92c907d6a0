"""Whose process is at the other end of a connection, where the kernel can tell: on this machine.

The kernel lists every TCP socket with the user that has it. A peer that is not listed (another
machine, another container) is a stranger.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

#: Where the kernel lists sockets.
PROC = Path("/proc/net")


def is_own(sock: socket.socket | None) -> bool:
    """Whether the other end of a connection is a process of this user, or of root, on this
    machine."""
    if sock is None:
        return False
    uid = peer_uid(sock)
    return uid is not None and uid in (0, os.geteuid())


def peer_uid(sock: socket.socket) -> int | None:
    """The user whose process is at the other end; None if that is not on this machine."""
    try:
        theirs, ours = sock.getpeername()[:2], sock.getsockname()[:2]
    except OSError:
        return None
    if not ipaddress.ip_address(theirs[0].partition("%")[0]).is_loopback:
        return None
    name = "tcp6" if sock.family == socket.AF_INET6 else "tcp"
    # Their socket's own end is our peer.
    wanted = [f"{_hex(*theirs)}", f"{_hex(*ours)}"]
    try:
        lines = (PROC / name).read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        columns = line.split()
        if columns[1:3] == wanted:
            return int(columns[7])
    return None


def _hex(address: str, port: int) -> str:
    """An address as /proc/net/tcp has it: words of 32 bits in the machine's order."""
    packed = ipaddress.ip_address(address.partition("%")[0]).packed
    words = [packed[i : i + 4] for i in range(0, len(packed), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return f"{b''.join(words).hex().upper()}:{port:04X}"
