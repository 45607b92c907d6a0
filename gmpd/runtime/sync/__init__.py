"""Go's ``sync`` for Gs: WaitGroup, Mutex, RWMutex, Cond, Once; and its weighted Semaphore and
singleflight.

Like a channel, each has a home loop and is touched by the holder of its P alone; ``.sync`` is the
face for sync Gs and threads, and operations that never wait (``done``, ``unlock``, ``signal``) may
be called from anywhere. Go cannot cancel a G that waits for a lock. Here a cancelled wait leaves
the queue; and what it had been given just before (the lock, a signal) is passed on to the next
one. Rejected: asyncio.Lock, which has no hand-over when a waiter starves, and neither readers,
sync Gs nor Go's words for why a G waits.

These files know nothing of channels. Counterpart: ``group`` (errgroup).
"""

from gmpd.runtime.sync.cond import Cond
from gmpd.runtime.sync.mutex import Mutex
from gmpd.runtime.sync.once import Once
from gmpd.runtime.sync.rwmutex import RWMutex
from gmpd.runtime.sync.semaphore import Semaphore
from gmpd.runtime.sync.singleflight import SingleFlight
from gmpd.runtime.sync.waitgroup import WaitGroup

__all__ = [
    "Cond",
    "Mutex",
    "Once",
    "RWMutex",
    "Semaphore",
    "SingleFlight",
    "WaitGroup",
]
