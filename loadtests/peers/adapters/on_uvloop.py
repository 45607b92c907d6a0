"""uvloop: as asyncio, with its loop."""

from __future__ import annotations

import asyncio

from loadtests.peers.adapters import on_asyncio


class Adapter(on_asyncio.Adapter):
    title = "uvloop"
    packages = ("uvloop",)
    version_of = "uvloop"

    def start(self, mode: str) -> None:
        import uvloop

        self.loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
