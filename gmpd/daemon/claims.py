"""Claims: a lease is its worker's once claimed, or the coordinator's again once revoked.

A lease that has not begun may be revoked from a worker that cannot answer: one that is
stopped, or whose GIL is held by C code. So both sides decide it in shared memory, by one atomic
test-and-set of the lease's word: the side that finds it free owns the lease for good. The worker
sets the word to *claim* (it runs the job next), the coordinator to *revoke* (the job goes
elsewhere, under a new token). Neither side holds a lock meanwhile, so neither can die, be stopped
or lose the GIL with one, and neither waits.

**Rejected.** A byte-range lock around a table of states (0.7 µs, and it is released by the kernel
when its holder dies): taking it releases the GIL, so a thread that hogs the GIL in C code gets it
while the lock is held; the coordinator could then revoke nothing from exactly the workers that
this is for. Two flags with memory barriers: Python offers no barrier.

The word is a process-shared POSIX spin lock that is only ever tried: the one atomic operation that
every libc exports. Beside it stands its owner's token: after ``CLAIMS`` leases a place is used
again, and a worker that still holds an old, revoked lease must not set the new one's word.

A second word beside it is the *right to answer* (``answers``): the worker takes it before it tells
the client of this lease its value, the coordinator before it ends a begun lease without its worker.

This module does not know jobs, nor the rest of the shared memory.
"""

from __future__ import annotations

import ctypes
import mmap
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import cython
else:
    from gmpd.runtime import interpreted as cython

#: Places. More than a worker is ever given at once (``dispatch.credit_max`` allows 4,096).
CLAIMS = 1 << 14
#: Two words and an owner's token for each.
CLAIMS_BYTES = CLAIMS * 12

_MASK: Final = CLAIMS - 1
_WORDS_AT = CLAIMS * 4
#: Behind the words of claims.
_RIGHTS: Final = CLAIMS * 4
_LOW: Final = 0xFFFFFFFF

# PyDLL: the call is over in 20 ns, and releasing the GIL for it is what must not happen.
_libc = ctypes.PyDLL(None)
if not cython.compiled:
    _take = _libc.pthread_spin_trylock
    _take.argtypes, _take.restype = [ctypes.c_void_p], ctypes.c_int


def _word_values() -> tuple[int, int]:
    """The values of a word that is free, and of one that is taken: each libc chooses its own."""
    word = ctypes.c_uint32()
    shared = 1  # PTHREAD_PROCESS_SHARED
    if _libc.pthread_spin_init(ctypes.byref(word), shared):
        raise OSError("pthread_spin_init refuses a process-shared lock")
    free = word.value
    if _take(ctypes.addressof(word)) or word.value == free or not _take(ctypes.addressof(word)):
        raise OSError("pthread_spin_trylock does not behave as a test-and-set of 4 bytes")
    return free, word.value


_FREE, _TAKEN = _word_values()
_ALL_FREE = memoryview(array("I", [_FREE]) * CLAIMS)
_ALL_TAKEN = array("I", [_TAKEN]) * CLAIMS
_TAKEN_BYTES = _ALL_TAKEN.tobytes()


class Claims:
    """Either side's view of the claims in ``shared``, from byte ``at`` on.

    The coordinator alone calls ``offer``, ``may_answer`` and ``revoke``, the worker alone
    ``claim``.
    """

    def __init__(self, shared: mmap.mmap, at: int) -> None:
        self._shared = shared
        self._at = at
        self._view = memoryview(shared)[at : at + CLAIMS_BYTES]
        self._owners = self._view[:_WORDS_AT].cast("I")
        self._words = self._view[_WORDS_AT : _WORDS_AT + _RIGHTS].cast("I")
        self._rights = self._view[_WORDS_AT + _RIGHTS :].cast("I")
        self._anchor: ctypes.c_char | None = ctypes.c_char.from_buffer(shared, at + _WORDS_AT)
        self._address = ctypes.addressof(self._anchor)

    def clear(self) -> None:
        """Nothing is on offer. Before the worker starts."""
        self._words[:] = memoryview(_ALL_TAKEN)
        self._rights[:] = memoryview(_ALL_TAKEN)

    def close(self) -> None:
        """Release the shared memory; the claims may not be used any more."""
        self._anchor = None
        self._owners.release()
        self._words.release()
        self._rights.release()
        self._view.release()

    def offer(self, first: int, n: int) -> list[int]:
        """Put ``n`` leases from token ``first`` on up for claiming; before the worker gets them.

        Gives the tokens of leases that lay there ``CLAIMS`` tokens ago and were not claimed in
        all that time: they are revoked now. Raises ValueError for more than ``CLAIMS`` at once.
        """
        if n > CLAIMS:
            raise ValueError(f"{n} leases at once, there are {CLAIMS} places")
        start = first & _MASK
        head = min(n, CLAIMS - start)
        displaced = self._offer(start, first, head)
        if head < n:
            displaced += self._offer(0, first + head, n - head)
        return displaced

    def _offer(self, start: int, first: int, n: int) -> list[int]:
        end = start + n
        words_at = self._at + _WORDS_AT
        displaced = []
        if self._shared[words_at + 4 * start : words_at + 4 * end] != _TAKEN_BYTES[: 4 * n]:
            displaced = self._clear_out(start, first, n)
        low = first & _LOW
        if low + n <= _LOW:
            owners = array("I", range(low, low + n))
        else:
            owners = array("I", [token & _LOW for token in range(first, first + n)])
        # Owners first: a word that is free has its owner beside it.
        self._owners[start:end] = memoryview(owners)
        self._words[start:end] = _ALL_FREE[:n]
        return displaced

    def _clear_out(self, start: int, first: int, n: int) -> list[int]:
        displaced = []
        for place in range(start, start + n):
            if self._words[place] == _FREE and not _take(self._address + 4 * place):
                new = first + place - start
                displaced.append(new - (new - self._owners[place] & _LOW))
        return displaced

    def may_answer(self, first: int, n: int) -> None:
        """The right to answer of leases that were just offered may be taken."""
        for token in range(first, first + n):
            self._rights[token & _MASK] = _FREE

    def revoke(self, tokens: Iterable[int]) -> list[int]:
        """Revoke leases; gives those that were not claimed, and now never will be."""
        words = self._address
        return [token for token in tokens if not _take(words + 4 * (token & _MASK))]

    def claim(self, token: int) -> bool:
        """The worker is about to run this; False when it was revoked, and must be dropped."""
        place = token & _MASK
        if _take(self._address + 4 * place):
            return False
        if self._owners[place] == token & _LOW:
            return True
        self._words[place] = _FREE  # it belongs to a later lease: as if never touched
        return False

    def take_right(self, token: int) -> bool:
        """Take the right to answer of a lease; False when the other side has it, or there is
        none."""
        place = token & _MASK
        if _take(self._address + _RIGHTS + 4 * place):
            return False
        if self._owners[place] == token & _LOW:
            return True
        self._rights[place] = _FREE  # as in ``claim``
        return False

    def is_claimed(self, token: int) -> bool:
        """For a lease that the coordinator has not revoked: whether its worker claimed it."""
        return self._words[token & _MASK] != _FREE
