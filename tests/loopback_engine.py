"""An engine without a library: hosts are processes of this machine, found by their sockets.

``python -m tests.loopback_engine DIRECTORY NAME CORES`` is a host, which SIGTERM drains. Each has
its own daemon in its own directory, as on another machine. ``LoopbackEngine`` is the other end:
``cluster.address`` is the directory.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gmpd.cluster.port import Answered, ClusterError, Host

_HEAD = struct.Struct(">Q")


class LoopbackEngine:
    """A connection for each exchange."""

    frame_bytes = 200_000
    forks = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._directory = Path(settings["address"])
        self._threads = ThreadPoolExecutor(8)
        #: Exchanges so far: with a file ``unreliable`` in the directory, some are delivered twice,
        #: and some answers lost.
        self._count = 0

    def hosts(self) -> list[Host]:
        if not self._directory.is_dir():
            raise ClusterError(f"nothing answers at {self._directory}")
        found = []
        for path in self._directory.glob("*.sock"):
            name, cores = path.stem.rsplit("-", 1)
            if is_cut(self._directory, name):
                continue
            leaves = path.with_suffix(".leaves").exists()
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(path))
                except OSError:
                    continue
                found.append(Host(name, int(cores), leaves))
        return found

    def send(self, host: str, batch: bytes, answered: Answered) -> None:
        self._threads.submit(self._exchange, host, batch, answered)

    def _exchange(self, host: str, batch: bytes, answered: Answered) -> None:
        self._count += 1
        try:
            if self._count % 3 == 0 and (self._directory / "unreliable").exists():
                self._once(host, batch)
            answer = self._once(host, batch)
            if self._count % 4 == 0 and (self._directory / "unreliable").exists():
                raise ConnectionError("the answer was lost")
        except BaseException as error:
            answered(error)
        else:
            answered(answer)

    def _once(self, host: str, batch: bytes) -> bytes:
        if is_cut(self._directory, host):
            raise ConnectionError("no way to the host")
        (path,) = self._directory.glob(f"{host}-*.sock")
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(path))
            link.sendall(_HEAD.pack(len(batch)) + batch)
            answer = _read(link)
        if is_cut(self._directory, host):
            raise ConnectionError("no way back from the host")
        return answer

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class FreshEngine(LoopbackEngine):
    """One whose processes are fresh interpreters."""

    forks = False


def is_cut(directory: Path, host: str) -> bool:
    """Whether a test has cut the ways to and from a host."""
    return (directory / f"{host}.cut").exists()


def _read(link: socket.socket) -> bytes:
    data = _read_exactly(link, _HEAD.size)
    return _read_exactly(link, _HEAD.unpack(data)[0])


def _read_exactly(link: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = link.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionError("the host closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve(directory: str, name: str, cores: str) -> None:
    """A host."""
    from gmpd.cluster.agent import close_all, drain_all, exchange

    path = Path(directory) / f"{name}-{cores}.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    print("ready", flush=True)

    def end() -> None:
        drain_all("it had SIGTERM")
        close_all()
        os._exit(0)

    signal.signal(signal.SIGTERM, lambda _number, _frame: threading.Thread(target=end).start())

    def answer(link: socket.socket) -> None:
        with link:
            try:
                data = exchange(_read(link))
                link.sendall(_HEAD.pack(len(data)) + data)
            except (OSError, ConnectionError):
                pass  # a probe, or its asker is gone

    while True:
        link, _ = listener.accept()
        threading.Thread(target=answer, args=(link,), daemon=True).start()


if __name__ == "__main__":
    os.environ.pop("GMPD_RUNTIME_DIR", None)
    serve(*sys.argv[1:4])
