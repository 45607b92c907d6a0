"""The jobs behind `gmpd run`: a command, run where the worker is. Workers import it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

#: Bytes of each stream that are kept; a command that says more is refused rather than cut silently.
OUTPUT_MAX = 64 << 20
#: Bytes of output that go into one message.
PART_BYTES = 1 << 16
#: Parts that are read ahead of the reader's room: what a command may write before it has to wait.
AHEAD_PARTS = 16

#: ("stdout" or "stderr", bytes), and last ("status", int): negative is the signal that ended it.
Part: TypeAlias = tuple[str, bytes] | tuple[str, int]


async def stream_command(argv: list[str], cwd: str, env: dict[str, str]) -> AsyncIterator[Part]:
    """Run ``argv`` and yield its output as it is written; its exit status comes last.

    What a shell says of a command that cannot be started: 127 when it is not there, 126 otherwise.
    A coroutine, so that it can be cancelled: the command and all that it started are ended then.
    Raises OSError when it cannot run in ``cwd``.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=cwd, env=env, process_group=0,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        if error.filename != argv[0]:
            raise
        why, status = f"{error.strerror}", 126
        if isinstance(error, FileNotFoundError):
            why, status = "command not found", 127
        yield "stderr", f"gmpd: {argv[0]}: {why}\n".encode()
        yield "status", status
        return
    try:
        async for part in _output(process):
            yield part
        yield "status", await process.wait()
    except BaseException:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await process.wait()
        raise


async def _output(process: asyncio.subprocess.Process) -> AsyncIterator[Part]:
    """Both streams, interleaved as they come, until both have ended."""
    parts: asyncio.Queue[Part | None] = asyncio.Queue(AHEAD_PARTS)

    async def read(name: str, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while part := await stream.read(PART_BYTES):
            await parts.put((name, part))
        await parts.put(None)

    readers = [
        asyncio.ensure_future(read("stdout", process.stdout)),
        asyncio.ensure_future(read("stderr", process.stderr)),
    ]
    try:
        unended = len(readers)
        while unended:
            part = await parts.get()
            if part is None:
                unended -= 1
            else:
                yield part
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def run_command(argv: list[str], cwd: str, env: dict[str, str]) -> dict[str, Any]:
    """As `stream_command`, whole: ``status``, ``stdout`` and ``stderr``.

    Raises ValueError when one of the two has more than OUTPUT_MAX bytes.
    """
    gathered: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    sizes = dict.fromkeys(gathered, 0)
    status = 0
    async with aclosing(stream_command(argv, cwd, env)) as parts:  # type: ignore[type-var]
        async for name, part in parts:
            if isinstance(part, int):
                status = part
                continue
            gathered[name].append(part)
            sizes[name] += len(part)
            if sizes[name] > OUTPUT_MAX:
                raise ValueError(
                    f"it wrote more than {OUTPUT_MAX >> 20} MiB: let it write to a file"
                )
    return {"status": status, **{name: b"".join(parts) for name, parts in gathered.items()}}
