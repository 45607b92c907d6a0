"""How far a generator job may be ahead of its reader: in items, and in bytes.

The reader acknowledges items by their number, when half of a window is used up. It does not know
jobs, messages and how to wait.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable

from gmpd.protocol import STREAM_BYTES

#: A step of a generator ends with an item of at least this size: more of them would exceed the
#: window, and are not known to be large before they are encoded.
LARGE_ITEM = 64 << 10


class StreamWindow:
    """``items``: how many items the reader has asked for, and has not got."""

    __slots__ = ("_nbytes", "_sizes", "items")

    def __init__(self, items: int) -> None:
        self.items = items
        #: Sizes of the items that were sent and are not acknowledged, in order; their sum.
        self._sizes: deque[int] = deque()
        self._nbytes = 0

    def is_open(self) -> bool:
        """Whether another item may be made."""
        return self.items > 0 and self._nbytes < STREAM_BYTES

    def sent(self, sizes: Iterable[int]) -> None:
        """Items of these sizes were sent."""
        for size in sizes:
            self._sizes.append(size)
            self._nbytes += size
            self.items -= 1

    def pulled(self, n: int) -> None:
        """The reader has taken ``n`` items more, and has room for as many."""
        self.items += n
        for _ in range(min(n, len(self._sizes))):
            self._nbytes -= self._sizes.popleft()


def is_large(item: object) -> bool:
    """Whether an item is likely to be large once it is encoded."""
    try:
        return sys.getsizeof(item) >= LARGE_ITEM
    except Exception:  # noqa: BLE001 - a __sizeof__ of the user's
        return False
