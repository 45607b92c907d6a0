"""Whether a thread that waits for a result spins before it sleeps, by how its client's waits went.

A short job's answer comes sooner than a sleeping thread wakes; for a longer one the spin is a waste
of a core, which the job may need. So a client whose spins were in vain sleeps at once, as adaptive
mutexes do. It spins again as soon as one wait was short enough, which a sleeper sees as well, and
tries now and then in any case: on a busy machine a sleeper wakes late.

It reads no clock. Several threads may wait at once: what they count is a hint.
"""

from __future__ import annotations

#: How long a waiting thread spins before it sleeps: more than a round trip on an idle machine.
SPIN_NS = 500_000
#: After this many spins in vain, one after the other, waits sleep at once.
VAIN_MAX = 8
#: A wait that slept for less might have been short enough for a spin: to wake takes a part of it.
SLEPT_NS = 2 * SPIN_NS
#: Of those waits one in this many spins all the same.
TRY_EVERY = 32


class Spin:
    """How the last waits of a client went."""

    __slots__ = ("_skipped", "_vain")

    def __init__(self) -> None:
        self._vain = self._skipped = 0

    def __repr__(self) -> str:
        return f"<Spin: {self._vain} in vain, then {self._skipped} not tried>"

    def next_ns(self, timeout: float | None = None) -> int:
        """How long the wait that begins now is to spin; below 0: not at all. A short ``timeout``
        (seconds) is all of the wait."""
        if timeout is not None and (ns := int(timeout * 1e9)) < SPIN_NS:
            return ns
        if self._vain < VAIN_MAX:
            return SPIN_NS
        self._skipped += 1
        return -1 if self._skipped % TRY_EVERY else SPIN_NS

    def ended(self, spin_ns: int, *, found: bool) -> None:
        """A spin has ended, with the result or without. A shorter one says nothing."""
        if found:
            self._vain = self._skipped = 0
        elif spin_ns == SPIN_NS:
            self._vain += 1

    def slept(self, ns: int) -> None:
        """A wait that did not spin took this long."""
        if ns < SLEPT_NS:
            self._vain = self._skipped = 0
