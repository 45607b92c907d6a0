"""An engine that says that it forks, and whose import has started a thread."""

from __future__ import annotations

import threading

from tests.loopback_engine import LoopbackEngine as ThreadedEngine

__all__ = ["ThreadedEngine"]

threading.Thread(target=threading.Event().wait, daemon=True).start()
