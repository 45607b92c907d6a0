"""How long a thread has the GIL while hogs compete for it.

CPython passes the GIL on after 5 ms, in turn. Beside eight hogs a P that needs it three times for a
message waits for 40 ms each time. So while hogs run without P the switch interval is shorter, by
their number; a switch costs some 10 us, so that is 2 % of a core at the lower bound.

The interval is the process's: the shortest that a P of it wants, and the program's own when no hog
is left, unless the program has set another one meanwhile.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

#: All hogs together are to have so much of a turn, in seconds: what is left is CPython's own.
ROUND_S: Final = 0.004
#: No shorter than this.
INTERVAL_S_MIN: Final = 0.0005


def interval_s(hogs: int, usual_s: float) -> float:
    """The switch interval beside ``hogs`` hogs."""
    return usual_s if hogs == 0 else min(usual_s, max(INTERVAL_S_MIN, ROUND_S / (hogs + 1)))


class SwitchInterval:
    """The interval of this process. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The number of hogs, by observer.
        self._hogs: dict[int, int] = {}
        self._usual_s = 0.0
        #: The interval set here last; 0: none is.
        self._set_s = 0.0

    def set_hogs(self, observer: int, hogs: int) -> None:
        """``observer`` counts ``hogs`` hogs now."""
        if self._hogs.get(observer, 0) == hogs:
            return
        with self._lock:
            if hogs:
                self._hogs[observer] = hogs
            else:
                self._hogs.pop(observer, None)
            now_s = sys.getswitchinterval()
            if self._set_s == 0.0 or abs(now_s - self._set_s) > 1e-6:  # the program's own
                self._usual_s = now_s
            wanted = interval_s(sum(self._hogs.values()), self._usual_s)
            if wanted != now_s:
                sys.setswitchinterval(wanted)
            self._set_s = sys.getswitchinterval() if self._hogs else 0.0


#: The process has one.
SWITCH_INTERVAL: Final = SwitchInterval()
