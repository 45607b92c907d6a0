"""Libraries of other people run on the loop unmodified, in children and tasks alike."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
import anyio
import httpx
import pytest
from aiohttp import web

from gmpd.runtime.go import go
from gmpd.runtime.run import run

T = TypeVar("T")


async def serve(test: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Run ``test(url)`` beside an aiohttp server on the same P."""

    async def echo(request: web.Request) -> web.Response:
        await asyncio.sleep(0.001)
        return web.Response(body=await request.read() or b"empty")

    async def socket(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for message in answer:
            await answer.send_str(message.data.upper())
        return answer

    app = web.Application()
    app.router.add_route("*", "/", echo)
    app.router.add_get("/socket", socket)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        return await test(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    finally:
        await runner.cleanup()


def test_two_hundred_aiohttp_requests_in_children() -> None:
    async def main() -> list[bytes]:
        async def requests(url: str) -> list[bytes]:
            async with aiohttp.ClientSession() as session:

                async def fetch(number: int) -> bytes:
                    async with session.post(url, data=str(number)) as response:
                        return await response.read()

                return list(await asyncio.gather(*[go(fetch, number) for number in range(200)]))

        return await serve(requests)

    assert run(main()) == [str(number).encode() for number in range(200)]


def test_aiohttp_times_a_request_out_in_a_child() -> None:
    async def main() -> None:
        async def request(url: str) -> None:
            timeout = aiohttp.ClientTimeout(total=0.0001)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                await session.get(url)

        await serve(lambda url: wrapped(go(request, url)))

    with pytest.raises(asyncio.TimeoutError):
        run(main())


async def wrapped(g: Any) -> Any:
    return await g


def test_websockets_of_aiohttp() -> None:
    async def main() -> str:
        async def talk(url: str) -> str:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(url + "socket") as socket,
            ):
                await socket.send_str("hello")
                return str((await socket.receive()).data)

        return await serve(talk)

    assert run(main()) == "HELLO"


def test_httpx_and_anyio_in_children() -> None:
    async def main() -> tuple[list[int], bool]:
        async def requests(url: str) -> list[int]:
            async with httpx.AsyncClient(trust_env=False) as client:

                async def fetch() -> int:
                    return (await client.get(url)).status_code

                return list(await asyncio.gather(*[go(fetch) for _ in range(20)]))

        async def scoped() -> bool:
            with anyio.move_on_after(0.01) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 60)
            return scope.cancelled_caught

        return await serve(requests), await go(scoped)

    assert run(main()) == ([200] * 20, True)


def test_asyncio_timeout_and_task_group_in_a_child() -> None:
    async def main() -> list[str]:
        async def child() -> list[str]:
            seen = []
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(60)
            except TimeoutError:
                seen.append("timed out")
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(60))
                    group.create_task(fail())
            except* LookupError:
                seen.append("group failed")
            return seen

        async def fail() -> None:
            raise LookupError

        return list(await go(child))

    assert run(main()) == ["timed out", "group failed"]


def test_children_inherit_context_variables_and_keep_their_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> list[str]:
        variable.set("parent")

        async def child() -> str:
            before = variable.get()
            variable.set("child")
            await asyncio.sleep(0)
            return f"{before} {variable.get()}"

        def plain() -> str:
            before = variable.get()
            variable.set("plain")
            return before

        return [await go(child), await go(plain), variable.get()]

    assert run(main()) == ["parent child", "parent", "parent"]


def test_subprocesses_and_executors() -> None:
    async def main() -> tuple[bytes, int]:
        loop = asyncio.get_running_loop()
        process = await asyncio.create_subprocess_exec("echo", "hi", stdout=-1)
        said, _ = await process.communicate()
        return said, await loop.run_in_executor(None, lambda: 5)

    assert run(main()) == (b"hi\n", 5)
