"""A Dask cluster whose hosts are in network namespaces: as far as sockets go, other machines.

Each has one wire to a bridge (of the network kind) on this machine, which can be cut. Needs root
and ``ip``; processes in a namespace have to end before it does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.dask_cluster import DaskCluster


class NoNamespaces(Exception):
    """This machine, or this user, has none to give; the reason."""


def ip(*words: str) -> None:
    """Raises NoNamespaces with what it said."""
    if os.geteuid() or shutil.which("ip") is None:
        raise NoNamespaces("network namespaces need root and `ip` (iproute2)")
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespaces(f"ip {' '.join(words)}: {done.stderr.strip()}")


class NamespacedCluster(DaskCluster):
    """Hosts in namespaces named after this process. Raises NoNamespaces."""

    def __init__(self, directory: Path, ttl: str = "60s") -> None:
        self._name = f"gm{os.getpid()}"
        #: The network for benchmarks of RFC 2544: no machine has it.
        self._net = f"198.18.{os.getpid() % 250}"
        self.head = f"{self._net}.1"
        #: Each host's namespace, and this end of its wire.
        self._wires: dict[str, str] = {}
        try:
            ip("link", "add", self._name, "type", "bridge")
            ip("addr", "add", f"{self.head}/24", "dev", self._name)
            ip("link", "set", self._name, "up")
            super().__init__(directory, ttl)
        except BaseException:
            self._remove()
            raise

    def address_of(self, n: int) -> str:
        return f"{self._net}.{n}"

    def within(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", self._wires[name]]

    def add(
        self, name: str, n: int, cores: int = 2, words: tuple[str, ...] = ("--no-nanny",)
    ) -> None:
        """Host ``n``, from 2 on; with the same name and number again after it was killed."""
        if name not in self._wires:
            self._wire(name, n)
        super().add(name, n, cores, words)

    def _wire(self, name: str, n: int) -> None:
        wire = self._wires[name] = f"{self._name}-{n}"
        ip("netns", "add", wire)
        ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", wire)
        ip("link", "set", wire, "master", self._name, "up")
        ip("-n", wire, "addr", "add", f"{self.address_of(n)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", wire, "link", "set", device, "up")

    def cut(self, name: str) -> None:
        """Its wire."""
        ip("link", "set", self._wires[name], "down")

    def join(self, name: str) -> None:
        """Its wire again."""
        ip("link", "set", self._wires[name], "up")

    def close(self) -> None:
        """Ends all processes, then the namespaces. Once or often."""
        super().close()
        self._remove()

    def _remove(self) -> None:
        for wire in self._wires.values():
            subprocess.run(["ip", "netns", "del", wire], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "link", "del", self._name], stderr=subprocess.DEVNULL, check=False)
        self._wires.clear()
