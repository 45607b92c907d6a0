"""Other people's libraries on a P, unmodified, with plain functions beside them that block.

    python tests/library_programs.py run|daemon NAME [ARGUMENT]

Each is a program as its user would write it; it prints what it got. ``run``: on the P of
``gmpd.run``. ``daemon``: as a job of a private daemon with one P, blocking jobs beside it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import gmpd

#: Requests at once.
MANY = 20


async def aiohttp(_: str) -> Any:
    import aiohttp
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=(await request.text()).upper())

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:

            async def ask(n: int) -> str:
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
                async with session.post(url, data=f"n{n}") as response:
                    return await response.text()

            return await asyncio.gather(*[ask(n) for n in range(MANY)])
    finally:
        await runner.cleanup()


async def fastapi(_: str) -> Any:
    """Served by uvicorn, asked by httpx; endpoints that block run in anyio's threads."""
    import httpx
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/waits/{n}")
    async def waits(n: int) -> str:
        await asyncio.sleep(0.001)
        return f"N{n}"

    @app.get("/blocks/{n}")
    def blocks(n: int) -> str:
        time.sleep(0.001)
        return f"N{n}"

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:

        async def ask(n: int) -> str:
            path = f"/{'waits' if n % 2 else 'blocks'}/{n}"
            return str((await client.get(path, timeout=30)).json())

        got = await asyncio.gather(*[ask(n) for n in range(MANY)])
    server.should_exit = True
    await serving
    return got


async def websockets(_: str) -> Any:
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    async def answer(socket: Any) -> None:
        async for message in socket:
            await socket.send(message.upper())

    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", proxy=None) as socket:
            got = []
            for n in range(MANY):
                await socket.send(f"n{n}")
                got.append(await socket.recv())
            return got


async def grpc(_: str) -> Any:
    import grpc

    async def answer(request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(0.001)
        return request.upper()

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "test", {"Up": grpc.unary_unary_rpc_method_handler(answer)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        up = channel.unary_unary("/test/Up")

        async def ask(n: int) -> str:
            return bytes(await up(f"n{n}".encode())).decode()

        got = await asyncio.gather(*[ask(n) for n in range(MANY)])
    await server.stop(None)
    return got


async def asyncpg(host: str) -> Any:
    import asyncpg

    pool_of_four = asyncpg.create_pool(
        host=host, user="test", database="postgres", min_size=1, max_size=4
    )
    async with pool_of_four as pool:

        async def ask(n: int) -> str:
            async with pool.acquire() as connection, connection.transaction():
                return str(
                    await connection.fetchval("select upper($1) || pg_sleep(0.001)", f"n{n}")
                )

        return await asyncio.gather(*[ask(n) for n in range(MANY)])


async def psycopg(host: str) -> Any:
    import psycopg

    async def ask(n: int) -> str:
        where = f"host={host} user=test dbname=postgres"
        async with await psycopg.AsyncConnection.connect(where) as connection:
            cursor = await connection.execute("select upper(%s)", (f"n{n}",))
            row = await cursor.fetchone()
            assert row is not None
            return str(row[0])

    return await asyncio.gather(*[ask(n) for n in range(MANY)])


async def sqlalchemy(host: str) -> Any:
    """Its async engine is a greenlet, which cannot change threads."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        f"postgresql+asyncpg://test@/postgres?host={host}", pool_size=4, max_overflow=0
    )

    async def ask(n: int) -> str:
        async with engine.begin() as connection:
            got = await connection.execute(text("select upper(:n)"), {"n": f"n{n}"})
            await connection.execute(text("select pg_sleep(0.005)"))
            return str(got.scalar_one())

    try:
        return await asyncio.gather(*[ask(n) for n in range(MANY)])
    finally:
        await engine.dispose()


async def redis(path: str) -> Any:
    from redis.asyncio import Redis

    async with Redis(unix_socket_path=path, decode_responses=True) as client:

        async def ask(n: int) -> str:
            await client.set(f"key{n}", f"N{n}")
            await client.rpush("list", n)
            return str(await client.get(f"key{n}"))

        got = await asyncio.gather(*[ask(n) for n in range(MANY)])
        async with client.pubsub() as listener:
            await listener.subscribe("news")
            await client.publish("news", "came")
            while (message := await listener.get_message(timeout=30)) is not None:
                if message["type"] == "message":
                    assert message["data"] == "came"
                    break
        await client.delete("list")
        return got


async def anyio(_: str) -> Any:
    import anyio
    import anyio.to_thread

    got: list[str] = []

    async def ask(n: int) -> None:
        with anyio.fail_after(30):
            await anyio.sleep(0.001)
            got.append(await anyio.to_thread.run_sync(f"n{n}".upper))

    async with anyio.create_task_group() as group:
        for n in range(MANY):
            group.start_soon(ask, n)
    return sorted(got, key=lambda each: int(each[1:]))


async def tornado(_: str) -> Any:
    from tornado.httpclient import AsyncHTTPClient
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from tornado.web import Application, RequestHandler

    class Up(RequestHandler):
        async def get(self, n: str) -> None:
            await asyncio.sleep(0.001)
            self.finish(f"N{n}")

    server = HTTPServer(Application([(r"/(\d+)", Up)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    client = AsyncHTTPClient(force_instance=True)

    async def ask(n: int) -> str:
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/{n}"
        return (await client.fetch(url, request_timeout=30)).body.decode()

    got = await asyncio.gather(*[ask(n) for n in range(MANY)])
    client.close()
    server.stop()
    await server.close_all_connections()
    return got


PROGRAMS: dict[str, Callable[[str], Awaitable[Any]]] = {
    program.__name__: program
    for program in (
        aiohttp, anyio, asyncpg, fastapi, grpc, psycopg, redis, sqlalchemy, tornado, websockets,
    )
}  # fmt: skip


async def beside(name: str, argument: str) -> Any:
    """On the P of ``gmpd.run``, with plain children that block, again and again."""
    over = False

    def blocks() -> None:
        while not over:
            time.sleep(0.002)

    async def restarts() -> None:
        while not over:
            await gmpd.go(time.sleep, 0.01)

    gs = [gmpd.go(blocks), gmpd.go(blocks), gmpd.go(restarts)]
    try:
        return await gmpd.go(PROGRAMS[name], argument)
    finally:
        over = True
        for g in gs:
            await g


def as_job(name: str, argument: str) -> Any:
    with gmpd.Client() as client:
        blocking = [client.submit(time.sleep, 0.01 + n / 1000) for n in range(30)]
        got = client.submit(PROGRAMS[name], argument).result(50)
        for each in blocking:
            each.result(50)
        return got


def main() -> None:
    mode, name, argument = [*sys.argv[1:], ""][:3]
    got = gmpd.run(beside(name, argument)) if mode == "run" else as_job(name, argument)
    assert got == [f"N{n}" for n in range(MANY)], got
    print("ok")


if __name__ == "__main__":
    main()
