"""The gateway as tests start it: a process, told its settings as the daemon tells it."""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
from typing import Any

import msgpack


class Gateway:
    """The process under test."""

    def __init__(self, settings: dict[str, Any], command: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "gmpd.gateway"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgpack.packb(settings))
        self.process.stdin.flush()  # and not closed: the gateway must not wait for an end of file
        self.url = ""

    def wait_serving(self) -> Gateway:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready, "the gateway did not serve within 30 s"
        line = self.process.stdout.readline()
        assert line, self.stderr()
        self.url = json.loads(line)["url"]
        return self

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def ask(
        self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers
        finally:
            connection.close()

    def stderr(self) -> str:
        assert self.process.stderr is not None
        self.process.wait(10)
        return self.process.stderr.read().decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
