"""The process of a bridge, from within (gmpd.cluster.bridge)."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gmpd.cluster.bridge import Bridge
from gmpd.cluster.exchange import Told, pack
from gmpd.cluster.port import Answered, Host
from gmpd.cluster.relay import HostLost
from gmpd.daemon.shm import Slot, WorkerShm
from gmpd.netpoll import Network, Router

#: Seconds that the host of a test takes to answer.
SLOW_S = 0.5


class SlowEngine:
    """Its host refuses after a while."""

    frame_bytes = 1 << 20

    def __init__(self, settings: Mapping[str, Any]) -> None: ...

    def hosts(self) -> list[Host]:
        return []

    def send(self, host: str, batch: bytes, answered: Answered) -> None:
        told = pack(Told("", 0.0, ended="it is a test"))
        threading.Timer(SLOW_S, answered, [told]).start()

    def close(self) -> None: ...


def test_a_bridge_sleeps_while_its_host_starts(short_tmp: Path) -> None:
    """Else it takes a core, on which a host of the same machine would start."""
    network = Network()
    endpoint = f"ipc://{short_tmp}/workers"
    router = Router(network, endpoint)
    shm = SimpleNamespace(slots=[0] * len(Slot), sends=lambda: None)
    settings = {
        "endpoint": endpoint, "host": "h", "cores": 1, "lease_s": 5.0, "drain_s": 5.0,
        "start_timeout": 20.0,
        "engine": f"{__name__}:SlowEngine", "engine_settings": {}, "host_config": {},
        "initializer": None, "env": {},
    }  # fmt: skip
    bridge = Bridge(settings, cast("WorkerShm", shm), network)
    try:
        with pytest.raises(HostLost, match="it is a test"):
            bridge.begin()
        assert shm.slots[Slot.ROUND] < 20
    finally:
        router.close()
        bridge.close()
        os.close(bridge._wake)  # its process would end now
