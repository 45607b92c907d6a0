"""A client made of the protocol alone: tests of the daemon do not depend on gmpd.client."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

from gmpd import codec, protocol
from gmpd.config import Config
from gmpd.netpoll import Dealer, Network

#: Nothing that a test waits for takes longer on a loaded machine.
DEADLINE_S = 40.0


class RawDaemon:
    """A private daemon as a child process; ``end`` closes its standard input.

    ``initializer``: name and arguments of a function that each worker calls before it serves.
    ``nofile``: how many descriptors it may have.
    """

    def __init__(
        self,
        directory: Path,
        *,
        initializer: tuple[str, tuple[Any, ...]] | None = None,
        nofile: int | None = None,
        **config: object,
    ) -> None:
        call = None
        if initializer is not None:
            name, args = initializer
            call = ["name", name, b"", codec.encode_call(name, args, {}).data, []]
        settings = {
            "config": Config().override({"daemon.procs": 2, **config}).to_wire(),
            "private": True,
            "runtime_dir": str(directory / "d"),
            "sys_path": [str(Path(__file__).parent), *sys.path],
            "cwd": os.getcwd(),
            "initializer": call,
        }
        self.directory = directory / "d"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gmpd.daemon"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=None if nofile is None else lambda: _limit_descriptors(nofile),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        data = msgpack.packb(settings)
        self.process.stdin.write(len(data).to_bytes(4, "big") + data)
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if not answer["ok"]:
            self.end()
            raise RuntimeError(answer["error"])
        self.endpoint: str = answer["endpoint"]

    def end(self) -> int:
        """Close the pipe that keeps it alive; its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def _limit_descriptors(n: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


class RawClient:
    """One session. Outcomes gather in ``done``: seq -> (outcome, value or error text, details)."""

    def __init__(self, endpoint: str, *, hello: protocol.Hello | None = None) -> None:
        self.network = Network()
        self.link = Dealer(self.network, endpoint)
        self.done: dict[int, tuple[protocol.Outcome, Any, dict[str, Any]]] = {}
        self.running: set[int] = set()
        self.kept: set[int] = set()
        self.items: dict[int, list[Any]] = {}
        self.gone = ""
        self.replies: dict[int, protocol.Reply] = {}
        self._seq = self._fid = self._request = 0
        greeting = hello or protocol.hello("client", os.urandom(16), {"pid": os.getpid()})
        self.send(greeting)
        self.greeted = self.receive()

    def send(self, message: protocol.Message) -> None:
        self.link.send([protocol.pack(message)])

    def submit(
        self, name: str, *calls: tuple[Any, ...], options: dict[str, Any] | None = None
    ) -> list[int]:
        """Submit one job per tuple of arguments; gives their seqs."""
        self._fid += 1
        self.send(protocol.Define(self._fid, "name", name, b""))
        first = self._seq + 1
        self._seq += len(calls)
        payloads = [codec.encode_call(name, args, {}).data for args in calls]
        wire = protocol.options(options)
        for at in range(0, len(payloads), protocol.BATCH_JOBS_MAX):
            part = payloads[at : at + protocol.BATCH_JOBS_MAX]
            self.send(protocol.Submit(self._fid, first + at, wire, part, None))
        return list(range(first, self._seq + 1))

    def call(self, method: str, **params: Any) -> Any:
        self._request += 1
        self.send(protocol.Call(self._request, method, params))
        self.until(lambda: self._request in self.replies)
        reply = self.replies[self._request]
        if not reply.ok:
            raise RuntimeError(reply.value)
        return reply.value

    def outcomes(self, seqs: list[int]) -> list[tuple[protocol.Outcome, Any, dict[str, Any]]]:
        """Wait for these jobs."""
        self.until(lambda: all(seq in self.done for seq in seqs))
        return [self.done[seq] for seq in seqs]

    def until(self, fact: Any) -> None:
        """Receive until ``fact()`` holds; fails after the deadline."""
        end = time.monotonic() + DEADLINE_S
        while not fact():
            assert time.monotonic() < end, "the deadline passed"
            self.receive(0.05)

    def receive(self, timeout_s: float = DEADLINE_S) -> Any:
        """Take one message, or None when none came."""
        if not self.link.wait(timeout_s):
            return None
        frames = self.link.recv()
        if frames is None:
            return None
        message = protocol.unpack(bytes(frames[0]), protocol.TO_CLIENT)
        self._note(message, frames[1:])
        return message

    def _note(self, message: Any, frames: list[Any]) -> None:
        match message:
            case protocol.Done():
                self._note_done(message, frames)
            case protocol.Running(jobs):
                self.running.update(jobs)
            case protocol.Kept(jobs):
                self.kept.update(jobs)
            case protocol.Items(job, payloads, counts):
                buffers = protocol.split_buffers(counts, len(payloads), frames)
                self.items.setdefault(job, []).extend(map(codec.decode, payloads, buffers))
            case protocol.Reply(request):
                self.replies[request] = message
            case protocol.Gone(reason):
                self.gone = reason
            case _:
                pass  # Welcome, Refused: the caller has them

    def _note_done(self, message: protocol.Done, frames: list[Any]) -> None:
        rows = len(message.jobs)
        buffers = protocol.split_buffers(message.buffer_counts, rows, frames)
        for i, seq in enumerate(message.jobs):
            assert seq not in self.done, f"job {seq} has two outcomes"
            outcome, details = (message.specials or {}).get(i, (protocol.Outcome.OK, None))
            value: Any = None
            if outcome is protocol.Outcome.OK:
                value = codec.decode(message.payloads[i], buffers[i])
            elif message.payloads[i]:
                value = codec.error_summary(message.payloads[i])
            self.done[seq] = (outcome, value, {**(details or {})})
        self.send(protocol.Ack(len(self.done)))

    def close(self) -> None:
        self.network.close()


#: Starts a daemon with these settings, and a client of it.
Boot = Callable[..., tuple[RawDaemon, RawClient]]
