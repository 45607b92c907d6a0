"""A coordinator for tests of its gateway: it can be silent, late or wrong, as a real one cannot."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from gmpd import protocol
from gmpd.netpoll import Network, Poller, Router, ZapHandler

#: A whole snapshot of a busy daemon, as the contract describes it.
SNAPSHOT: dict[str, Any] = json.loads((Path(__file__).parent / "data/snapshot.json").read_text())


#: What stays as it is while a daemon works.
NAMES = frozenset({"p", "core", "epoch", "pid", "started_at", "procs", "up"})


def grown(value: Any, times: float) -> Any:
    """A snapshot, or part of one, with every count so many times as large."""
    if isinstance(value, dict):
        return {k: v if k in NAMES else grown(v, times) for k, v in value.items()}
    if isinstance(value, list):
        return [grown(item, times) for item in value]
    return type(value)(value * times) if type(value) in (int, float) else value


class FakeCoordinator:
    """Answers ``snapshot`` as told: with ``snapshot``, or not at all while ``silent``."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.snapshot: Any = dict(SNAPSHOT)
        self.silent = False
        #: It takes this long to answer.
        self.busy_s = 0.0
        #: Totals grow with every question, as if the daemon were busy.
        self.busy = False
        self.questions = 0
        #: When not empty, every Hello is refused with this reason.
        self.refuse = ""
        self._stop_r, self._stop_w = os.pipe()
        self._network = Network()
        self._router = Router(self._network, endpoint)
        self._zap = ZapHandler(self._network)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        poller = Poller()
        poller.add("stop", self._stop_r)
        poller.add("gate", self._zap)
        poller.add("router", self._router)
        while "stop" not in poller.wait(None):
            self._zap.answer()
            while (found := self._router.recv()) is not None:
                self._handle(*found)
        poller.close()

    def _handle(self, peer: bytes, frames: list[Any]) -> None:
        match protocol.unpack(bytes(frames[0]), protocol.FROM_CLIENT):
            case protocol.Hello() if self.refuse:
                self._send(peer, protocol.Refused(1, 1, self.refuse))
            case protocol.Hello():
                self._send(peer, protocol.Welcome(1, 1, 1024, 4096, 1 << 20, protocol.DaemonInfo()))
            case protocol.Call(request, "snapshot"):
                self.questions += 1
                if not self.silent:
                    time.sleep(self.busy_s)
                    times = 1 + 0.05 * self.questions * self.busy
                    self._send(peer, protocol.Reply(request, True, grown(self.snapshot, times)))
            case _:
                pass

    def _send(self, peer: bytes, message: protocol.Message) -> None:
        self._router.send(peer, [protocol.pack(message)])

    def close(self) -> None:
        """End the thread and remove the socket."""
        os.write(self._stop_w, b"x")
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._zap.close()
        self._router.close()
        self._network.close()
        os.close(self._stop_r)
        os.close(self._stop_w)
