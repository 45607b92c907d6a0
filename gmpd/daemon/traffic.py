"""Messages and bytes that went through the coordinator, counted by kind and direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

#: Bytes taken from one socket before the policy decides, beside a limit of messages: reading them
#: takes about two milliseconds, and delays all other peers.
BYTES_PER_TURN = 4 << 20


class Traffic:
    """Only ever rising. Kinds are the classes of ``protocol``: their names are made when shown."""

    def __init__(self) -> None:
        self._in: Counter[type[Any]] = Counter()
        self._out: Counter[type[Any]] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0

    def count_in(self, message: Any, frames: Iterable[Any]) -> None:
        """A message was read from these frames."""
        self._in[type(message)] += 1
        for frame in frames:
            self.bytes_in += len(frame)

    def count_out(self, message: Any, nbytes: int) -> None:
        """A message of ``nbytes`` bytes was sent; buffers beside it are not counted."""
        self._out[type(message)] += 1
        self.bytes_out += nbytes

    def counts(self) -> dict[str, dict[str, int]]:
        """Messages by direction and kind."""
        return {"in": _named(self._in), "out": _named(self._out)}


def _named(counts: Counter[type[Any]]) -> dict[str, int]:
    return {kind.__name__.lower(): n for kind, n in counts.items()}
