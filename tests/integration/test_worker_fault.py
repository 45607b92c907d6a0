"""A worker that cannot serve, seen from the place of the coordinator."""

from __future__ import annotations

import select
from pathlib import Path

from gmpd import protocol
from gmpd.config import Config
from gmpd.daemon.supervisor import SpawnContext, Supervisor, WorkerProcess
from gmpd.daemon.worker import EXIT_FAULT
from gmpd.netpoll import Network, Router
from tests.support import wait_until


def ended(worker: WorkerProcess, within_s: float) -> bool:
    return bool(select.select([worker.pidfd], [], [], within_s)[0])


def test_it_ends_when_it_was_told_that_its_fault_has_arrived(tmp_path: Path) -> None:
    """A message that a process sends shortly before its end may be lost, and the reason with it."""
    network = Network()
    router = Router(network, f"ipc://{tmp_path}/w")
    config = Config().override({"daemon.imports": ("no_such_module",)})
    supervisor = Supervisor(config, SpawnContext(f"ipc://{tmp_path}/w"), 1)
    worker = supervisor.spawn(0)
    try:
        peer, seen = b"", []
        while protocol.Fault not in seen:
            wait_until(lambda: router.readable, "a message of the worker")
            received = router.recv()
            assert received is not None
            peer, frames = received
            seen.append(type(protocol.unpack(frames[0], protocol.FROM_WORKER)))
        assert seen == [protocol.Hello, protocol.Fault]
        assert not ended(worker, 0.3)
        router.send(peer, [protocol.pack(protocol.Stop(drain=False))])
        assert ended(worker, 20)
    finally:
        supervisor.kill(worker)
        end = supervisor.reap(worker)
        worker.shm.close()
        router.close()
        network.close()
    assert end.exitcode == EXIT_FAULT
