"""The bridge's end of its exchanges with one agent, without IO: what to send next, what has come,
and when the host is lost.

**The lease.** The agent ends its daemon when its lease ends: ``lease_s`` after the last of its own
answers that the bridge has echoed, by the agent's clock. The bridge got that answer later than the
agent wrote it. So at ``lease_s`` after it came the lease has ended, however long messages took, and
no clocks are compared; ``EXIT_S`` later nothing of the host runs any more, and it may be called
lost. Before that its jobs run nowhere else.
"""

from __future__ import annotations

from gmpd.cluster.batches import BATCH_BYTES, EXCHANGES_MAX, Numbered
from gmpd.cluster.exchange import Ask, Told
from gmpd.daemon.host_mark import EXIT_S

#: After an exchange that failed, the next one is tried this much later (seconds).
AGAIN_S = 0.2


class Line:
    """Exchanges with life ``life`` of an agent. Times are seconds of the bridge's clock."""

    def __init__(self, bridge: str, life: str, lease_s: float, clock: float, now: float) -> None:
        self._bridge = bridge
        self._life = life
        self._lease_s = lease_s
        self._clock = clock
        self._number = 0
        self._away: set[int] = set()
        self._out = Numbered()
        #: Messages that went out; of the agent's, those that came, and those that came too early.
        self._sent = self._got = 0
        self._early: dict[int, list[list[bytes]]] = {}
        self._peer_got = 0
        self._again_at = 0.0
        #: The host is lost from then on, unless it answers before.
        self.lost_at = now + lease_s + EXIT_S
        #: Why, as far as is known; and whether the agent has said so.
        self.why = ""
        self._ended = False
        #: Why the host is about to end, as it says.
        self.leaves = ""

    @property
    def is_away(self) -> bool:
        """Whether an exchange is on its way."""
        return bool(self._away)

    @property
    def away(self) -> int:
        """Exchanges on their way."""
        return len(self._away)

    @property
    def unsent(self) -> bool:
        """Whether messages wait."""
        return self._sent < self._out.end

    @property
    def room(self) -> bool:
        """Whether another exchange may be sent."""
        return len(self._away) < EXCHANGES_MAX

    def say(self, frames: list[bytes]) -> None:
        """A message to the host's daemon."""
        self._out.add(frames)

    def next_ask(self, now: float, gather_s: float) -> Ask | None:
        """The exchange to send now; None if it is not time for one."""
        alone = not self._away
        if not self.room or now < self._again_at or not (alone or self.unsent):
            return None
        if alone:
            self._sent = self._peer_got
            self._early.clear()
        first = self._sent
        messages = self._out.since(first, BATCH_BYTES)
        self._sent = first + len(messages)
        self._number += 1
        self._away.add(self._number)
        return Ask(
            self._bridge, self._life, self._number, self._clock, self._got, alone,
            self._lease_s / 3, gather_s, first, messages,
        )  # fmt: skip

    def last_ask(self) -> Ask:
        """Tells the agent that this life is over."""
        return Ask(self._bridge, self._life, self._number + 1, self._clock, self._got, ends=True)

    def answered(self, number: int, told: Told, now: float) -> list[list[bytes]]:
        """An answer came: the messages that are next."""
        self._away.discard(number)
        if told.life != self._life:
            return []
        if told.ended:
            self._ended = True
            self.why = told.ended
            self.lost_at = min(self.lost_at, now + EXIT_S)
            return []
        self.leaves = self.leaves or told.leaves
        if told.clock > self._clock:
            self._clock = told.clock
            self.lost_at = now + self._lease_s + EXIT_S
            self.why = ""
        if told.got > self._peer_got:
            self._peer_got = told.got
            self._out.got(told.got)
        self._early[told.first] = told.messages
        return self._take_next()

    def _take_next(self) -> list[list[bytes]]:
        found: list[list[bytes]] = []
        for first in sorted(self._early):
            if first > self._got:
                break
            messages = self._early.pop(first)
            new = messages[self._got - first :]
            found += new
            self._got += len(new)
        return found

    def failed(self, number: int, why: str, now: float) -> None:
        """The engine could not deliver an exchange, or its answer."""
        self._away.discard(number)
        if not self._ended:
            self.why = why
        self._again_at = now + AGAIN_S

    def is_lost(self, now: float) -> bool:
        """Whether nothing of this life runs any more."""
        return now >= self.lost_at

    def next_due(self) -> float:
        """When to look again although nothing comes."""
        if self._again_at and not self._away:
            return min(self.lost_at, self._again_at)
        return self.lost_at
