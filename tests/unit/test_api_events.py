"""The stream of events: bounded for each reader, and free without one."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import pytest

from gmpd.gateway.api import events
from gmpd.gateway.api.events import BYE, PING, QUEUE_MAX, Full, Hub, Reader
from gmpd.gateway.api.questions import Questions
from gmpd.gateway.latest import Latest
from tests.api_served import UNREACHABLE, FakeLink, answers, served


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    async def story() -> None:
        reader = Reader(0)
        for i in range(QUEUE_MAX + 3):
            reader.offer(b"%d" % i, float(i))
        assert b'"events":3' in await reader.take()
        assert [await reader.take() for _ in range(QUEUE_MAX)] == [
            b"%d" % i for i in range(3, QUEUE_MAX + 3)
        ]
        reader.end()
        assert await reader.take() is BYE

    asyncio.run(story())


def test_a_reader_gets_news_no_more_often_than_it_asked() -> None:
    async def story() -> None:
        reader = Reader(1.0)
        for tenth in range(30):
            reader.offer(b"x", 100 + tenth / 10)
        reader.end()
        taken = 0
        while await reader.take() is not BYE:
            taken += 1
        assert taken in (3, 4)

    asyncio.run(story())


def test_a_quiet_stream_is_kept_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PING_S", 0.01)
    assert asyncio.run(Reader(0).take()) is PING


def hub_of(told: dict[str, Any]) -> tuple[Hub, FakeLink]:
    link = FakeLink(told)
    latest = Latest(link.snapshot, wait_s=10, reuse_s=0)
    ask = Questions(latest, lambda _role: link, rate=1e6)  # type: ignore[arg-type,return-value]
    return Hub(ask, period_s=0), link


def data_of(news: bytes) -> tuple[str, Any]:
    lines = dict(line.split(": ", 1) for line in news.decode().splitlines() if line)
    return lines["event"], json.loads(lines["data"])


def test_nobody_is_asked_while_nobody_reads() -> None:
    async def story() -> None:
        hub, link = hub_of(answers())
        await asyncio.sleep(0)
        assert not link.asked
        reader = hub.enter(0)
        name, data = data_of(await reader.take())
        assert (name, data["snapshot"]["procs"], data["picture"]["names"]) == (
            "snapshot",
            2,
            ["m:f"],
        )
        hub.leave(reader)
        assert len(hub) == 0
        asked = len(link.asked)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(link.asked) <= asked + 1  # one was under way

    asyncio.run(asyncio.wait_for(story(), 20))


def test_what_has_not_changed_is_not_told_again_and_what_has_is() -> None:
    async def story() -> None:
        told = answers()
        hub, link = hub_of(told)
        reader = hub.enter(0)
        assert data_of(await reader.take())[1]["seq"] == 1
        looks = len(link.asked)
        while len(link.asked) < looks + 6:
            await asyncio.sleep(0)
        told["snapshot"] = told["snapshot"] | {"sessions": 99}
        assert data_of(await reader.take())[1]["snapshot"]["sessions"] == 99
        # A later reader gets the present state at once.
        late = hub.enter(0)
        assert data_of(await late.take())[1]["snapshot"]["sessions"] == 99
        await hub.close()
        while (last := await late.take()) is not BYE:
            assert last

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_change_of_a_host_is_told_at_once_and_its_idle_batches_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "STILL_S", 1e6)

    async def story() -> None:
        told = answers()
        hub, link = hub_of(told)
        reader = hub.enter(0)

        def host(**facts: Any) -> None:
            row = {"name": "north", "cores": 2, "state": "idle", **facts}
            cluster = {"engine": "dask", "address": "tcp://a:1", "hosts": [row]}
            told["snapshot"] = told["snapshot"] | {"cluster": cluster}

        host()
        while not (seen := data_of(await reader.take())[1])["snapshot"]["cluster"]["hosts"]:
            pass
        host(batches=7)
        looks = len(link.asked)
        while len(link.asked) < looks + 6:
            await asyncio.sleep(0)
        host(state="lost", losses=1)
        after = data_of(await reader.take())[1]
        assert after["seq"] == seen["seq"] + 1
        assert after["snapshot"]["cluster"]["hosts"][0]["state"] == "lost"
        await hub.close()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_daemon_that_is_gone_is_told_and_comes_back() -> None:
    async def story() -> None:
        told = answers() | {"snapshot": UNREACHABLE}
        hub, _ = hub_of(told)
        reader = hub.enter(0)
        assert data_of(await reader.take()) == ("gone", {"error": "nobody there"})
        told["snapshot"] = answers()["snapshot"]
        while data_of(await reader.take())[0] != "snapshot":
            pass
        await hub.close()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_there_are_so_many_readers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "READERS_MAX", 1)

    async def story() -> None:
        hub, _ = hub_of(answers())
        hub.enter(0)
        with pytest.raises(Full):
            hub.enter(0)
        await hub.close()

    asyncio.run(story())


def test_the_stream_as_a_browser_reads_it_ends_with_the_gateway() -> None:
    with served() as site:
        connection = http.client.HTTPConnection(site.host, timeout=20)
        connection.request("GET", "/api/v1/events")
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.readline() == b"retry: 1000\n"
        lines = [response.readline() for _ in range(4)]
        assert lines[1:3] == [b"id: 1\n", b"event: snapshot\n"]
    rest = response.read()
    assert rest.endswith(BYE)
    connection.close()
