"""The job behind `gmpd run`: a command, run where the worker is. Workers import it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

#: Bytes of each stream that are kept; a command that says more is refused rather than cut silently.
OUTPUT_MAX = 64 << 20


async def run_command(argv: list[str], cwd: str, env: dict[str, str]) -> dict[str, Any]:
    """Run ``argv``; its status (negative: the signal that ended it) and what it wrote.

    What a shell says of a command that cannot be started: 127 when it is not there, 126 otherwise.
    A coroutine, so that it can be cancelled: the command and all that it started are ended then.
    Raises OSError when it cannot run in ``cwd``, ValueError when it writes more than OUTPUT_MAX.
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
        return {"status": status, "stdout": b"", "stderr": f"gmpd: {argv[0]}: {why}\n".encode()}
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        out, err, _ = await asyncio.gather(
            _read(process.stdout), _read(process.stderr), process.wait()
        )
    except BaseException:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await process.wait()
        raise
    return {"status": process.returncode, "stdout": out, "stderr": err}


async def _read(stream: asyncio.StreamReader) -> bytes:
    parts, size = [], 0
    while part := await stream.read(1 << 16):
        size += len(part)
        if size > OUTPUT_MAX:
            raise ValueError(f"it wrote more than {OUTPUT_MAX >> 20} MiB: let it write to a file")
        parts.append(part)
    return b"".join(parts)
