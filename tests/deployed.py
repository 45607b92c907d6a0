"""The cluster of docker-compose.yml, and of config/kubernetes/cluster.yaml, as processes of this
machine: the commands, environments and probes of the files, with addresses and directories of here.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.dask_cluster import SETTINGS
from tests.jobs_hosts import NAME
from tests.support import surroundings, wait_until

yaml: Any = pytest.importorskip("yaml", reason="PyYAML is in the extra dev")

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "config" / "kubernetes" / "cluster.yaml"
#: The image's own variables; ``/srv`` is where jobs find modules.
IMAGE = dict(
    re.findall(
        r"\b(GMPD_RUNTIME_DIR|GMPD_STATE_DIR|PYTHONPATH)=(\S+)", (ROOT / "Dockerfile").read_text()
    )
)
#: Ports that every host has at its own address, and those of the cluster.
_OF_HOSTS = ("8788", "8790")
_PORT = re.compile(r"\b(8786|8787|8788|8790|7411|7412|7413)\b")


class Role(NamedTuple):
    """A container: its command, its variables, and the commands that say whether it is well."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    probes: list[list[str]]


def compose() -> dict[str, Any]:
    """The compose file, with the defaults of its variables."""
    text = (ROOT / "docker-compose.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return found


def compose_roles() -> list[Role]:
    """The services of the profile ``cluster``."""
    roles = []
    for name, service in compose()["services"].items():
        if "cluster" in service.get("profiles", ()):
            env = {k: str(v) for k, v in service.get("environment", {}).items()}
            probe = service["healthcheck"]["test"]
            assert probe[0] == "CMD"
            roles.append(Role(name, service["command"], {**IMAGE, **env}, [probe[1:]]))
    return roles


def manifest() -> list[dict[str, Any]]:
    """The documents of the manifest."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
    return documents


def named(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind."""
    return {doc["metadata"]["name"]: doc for doc in manifest() if doc["kind"] == kind}


def manifest_roles() -> tuple[list[Role], list[Role]]:
    """Containers that run before others, and those that run on: one for each replica."""
    first, roles = [], []
    for name, deployment in named("Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        first += [_role(name, each) for each in spec.get("initContainers", ())]
        for n in range(deployment["spec"]["replicas"]):
            roles += [_role(f"{name}-{n}", each) for each in spec["containers"]]
    return first, roles


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a container, as the kubelet sets them."""
    env = dict(IMAGE)
    for source in container.get("envFrom", ()):
        env |= named("ConfigMap")[source["configMapRef"]["name"]]["data"]
    for each in container.get("env", ()):
        if "value" in each:
            env[each["name"]] = each["value"]
        else:
            part, resource = each["valueFrom"]["resourceFieldRef"]["resource"].split(".")
            env[each["name"]] = container["resources"][part][resource]
    return env


def _role(name: str, container: Mapping[str, Any]) -> Role:
    env = environment(container)
    words = container["command"] + container["args"]
    command = [re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], word) for word in words]
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
    kinds = ("startupProbe", "readinessProbe", "livenessProbe")
    probes: list[list[str]] = []
    for probe in (_probe(container[kind], ports) for kind in kinds if kind in container):
        if probe not in probes:
            probes.append(probe)
    return Role(name, command, env, probes)


def _probe(probe: Mapping[str, Any], ports: Mapping[str, int]) -> list[str]:
    if "exec" in probe:
        command: list[str] = probe["exec"]["command"]
        return command
    get = probe["httpGet"]
    url = f"http://localhost:{ports[get['port']]}{get['path']}"
    headers = {each["name"]: each["value"] for each in get.get("httpHeaders", ())}
    asks = (
        f"from urllib.request import Request, urlopen; urlopen(Request({url!r}, None, {headers}))"
    )
    return ["python", "-c", asks]


class Deployed:
    """Processes of roles below a directory. ``mode``: of the directories that are mounted."""

    def __init__(self, directory: Path, mode: int) -> None:
        self.directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, str] = {}
        for name in ("run", "state", "tls"):
            (directory / name).mkdir()
            (directory / name).chmod(mode)

    def here(self, role: Role, text: str) -> str:
        """A word or a value of a file, as it is on this machine."""
        text = re.sub(r"\b(?:gmpd-)?head:", "127.0.0.1:", text)
        for there, here in {
            "/run/gmpd": f"{self.directory}/run",
            "/var/lib/gmpd": f"{self.directory}/state",
            "/etc/gmpd/tls": f"{self.directory}/tls",
            "=/tmp": f"={self.directory}/{role.name}",
        }.items():
            text = text.replace(there, here)
        return _PORT.sub(lambda found: self._port(role, found[0]), text)

    def _port(self, role: Role, port: str) -> str:
        key = f"{role.name} {port}" if port in _OF_HOSTS else port
        if key not in self._ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._ports[key] = str(free.getsockname()[1])
        return self._ports[key]

    def _start(
        self, role: Role, command: Iterable[str], output: int | None = None
    ) -> subprocess.Popen[bytes]:
        env = {name: self.here(role, value) for name, value in role.env.items()}
        # In place of /srv, and as tests find themselves.
        env["PYTHONPATH"] = str(ROOT)
        words = [self.here(role, word) for word in command]
        programs = {"python": Path(sys.executable)}
        for name in ("dask", "gmpd"):
            programs[name] = Path(sys.executable).with_name(name)
        return subprocess.Popen(
            [str(programs.get(words[0], words[0])), *words[1:]],
            cwd=self.directory,
            env={
                **surroundings(),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                **SETTINGS,
                "GMPD_DAEMON__LOG_LEVEL": "warning",
                "GMPD_DAEMON__PROCS": "1",
                NAME: role.name if "worker" in role.command else "",
                **env,
            },
            stdout=output,
            stderr=output,
        )

    def start(self, roles: Iterable[Role]) -> None:
        """Have these run until the end."""
        for role in roles:
            self._processes[role.name] = self._start(role, role.command)

    def run(self, role: Role, *command: str, output: int | None = None) -> int:
        """Run a command, or the role's own, in the role's place to its end: its exit status."""
        process = self._start(role, command or role.command, output)
        try:
            return process.wait(60)
        finally:
            process.kill()
            process.wait()

    def await_probes(self, roles: Iterable[Role]) -> None:
        """All say that they are well."""
        for role in roles:
            for probe in role.probes:
                passes = partial(self._passes, role, probe)
                wait_until(passes, f"{role.name} is well by {probe}", timeout=60)

    def _passes(self, role: Role, probe: list[str]) -> bool:
        return self.run(role, *probe, output=subprocess.DEVNULL) == 0

    def end(self, name: str) -> int:
        """As a container is stopped; the exit status."""
        process = self._processes.pop(name)
        process.terminate()
        try:
            return process.wait(60)
        finally:
            process.kill()
            process.wait()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
