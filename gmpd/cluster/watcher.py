"""The watcher: tells the daemon which hosts the engine has.

A line of JSON whenever that changes: ``{"hosts": [[name, cores, leaves],
...]}``, or ``{"problem": "..."}`` while the engine cannot be reached. It ends with the daemon.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gmpd.cluster.port import ClusterError, Engine, Tells, open_engine
from gmpd.timeouts import wait_s

#: The engine is asked this often (seconds), also one that tells of hosts: a host that joins is to
#: get work within a second.
LOOK_S = 0.4
#: And after it could not be reached.
AGAIN_S = 2.0
#: Failures in a row after which the hosts are taken for gone; a bridge finds that out by itself.
MISSED_MAX = 3


class Watcher:
    """``say`` gets each change."""

    def __init__(self, settings: Mapping[str, Any], say: Any) -> None:
        self._settings = settings
        self._say = say
        self._engine: Engine | None = None
        self._told: Any = None
        self._missed = 0

    def look(self) -> float:
        """Ask once, and tell what has changed; after how many seconds to ask again."""
        try:
            if self._engine is None:
                name, settings = self._settings["engine"], self._settings["engine_settings"]
                self._engine = open_engine(name, settings)
            hosts = sorted(self._engine.hosts())
        except ClusterError as error:
            return self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - of a library: whatever it does, hosts are missed
            return self._failed(f"the engine failed: {type(error).__name__}: {error}")
        self._missed = 0
        self._tell({"hosts": [list(host) for host in hosts]})
        return LOOK_S

    def await_news(self, most_s: float) -> None:
        """Until the next look; a shorter time when the engine tells of a host."""
        engine: object = self._engine
        if isinstance(engine, Tells):
            engine.await_change(wait_s(most_s))
        else:
            time.sleep(wait_s(most_s))

    def _failed(self, why: str) -> float:
        self._missed += 1
        if self._missed >= MISSED_MAX:
            self._tell({"problem": why, "hosts": []})
        else:
            self._tell({"problem": why})
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        return AGAIN_S

    def _tell(self, news: dict[str, Any]) -> None:
        if news != self._told:
            self._told = news
            self._say(json.dumps(news))


def watch(settings: Mapping[str, Any], out: int) -> None:
    """Until the daemon ends. ``out``: where the lines go."""
    lines = os.fdopen(out, "w", encoding="utf-8")
    watcher = Watcher(settings, lambda line: print(line, file=lines, flush=True))
    with suppress(BrokenPipeError):  # the daemon has ended just now
        while True:
            watcher.await_news(watcher.look())
