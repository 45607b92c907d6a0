"""``python -m gmpd.daemon``: the private daemon that a client starts for itself."""

from __future__ import annotations

import os
import signal
import sys

import msgpack

from gmpd import inherited
from gmpd.daemon.early import EarlyWorkers


def main() -> int:
    """One length-prefixed msgpack map of settings comes on standard input."""
    inherited.settle()
    # Before the loop takes signals for itself: go out through every `finally`.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: sys.exit(128 + got))
    size = int.from_bytes(_read(4), "big")
    settings = msgpack.unpackb(_read(size), unicode_errors="surrogateescape")
    early = EarlyWorkers()
    early.start(settings)
    from gmpd.daemon.serve import start_private  # meanwhile workers import what they need

    return start_private(settings, early)


def _read(size: int) -> bytes:
    """Exactly ``size`` bytes of standard input: the loop watches the rest for its end."""
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            raise SystemExit("gmpd.daemon: the settings on standard input ended early")
        data += chunk
    return data


if __name__ == "__main__":
    sys.exit(main())
