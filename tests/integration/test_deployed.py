"""The cluster of the compose file, and that of the Kubernetes manifest, at work: all roles by the
commands of the files, and jobs on each host."""

from __future__ import annotations

import math
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import NotRegistered
from tests import deployed, jobs_hosts
from tests.deployed import Deployed, Role
from tests.support import wait_until

pytest.importorskip("distributed", reason="gmpd[dask] is not installed")
#: Some thirty Pythons start one after the other: 57 s at a load of 37 on two cores.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def composed(short_tmp: Path) -> Iterator[Deployed]:
    made = Deployed(short_tmp, 0o700)
    yield made
    made.close()


@pytest.fixture
def applied(short_tmp: Path) -> Iterator[Deployed]:
    """Volumes of Kubernetes are open to all."""
    made = Deployed(short_tmp, 0o777)
    yield made
    made.close()


def hosts_of(roles: list[Role]) -> set[str]:
    return {role.name for role in roles if "worker" in role.command}


def jobs_run_on_each_host(client: gmpd.Client, hosts: set[str]) -> None:
    assert len(hosts) == 2

    def serve() -> bool:
        states = [row["state"] for row in client.call("cluster")["hosts"]]
        return len(states) == 2 and set(states) <= {"idle", "running"}

    wait_until(serve, "both hosts serve", timeout=90)
    assert {row["cores"] for row in client.call("cluster")["hosts"]} == {2}
    places: set[str] = set()

    def all_had_some() -> bool:
        places.update(client.map(jobs_hosts.where, [0.01] * 100, chunksize=1))
        return places == {"", *hosts}

    wait_until(all_had_some, "jobs have run here and on each host")


def test_services_of_the_profile_cluster_run_jobs(composed: Deployed) -> None:
    roles = deployed.compose_roles()
    composed.start(roles)
    composed.await_probes(roles)
    with gmpd.Client(str(composed.directory / "run")) as client:
        jobs_run_on_each_host(client, hosts_of(roles))
    assert composed.end("coordinator") == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_containers_of_the_manifest_run_jobs_by_tls(applied: Deployed) -> None:
    tls = applied.directory / "tls"
    _as_its_head_says(tls)
    first, roles = deployed.manifest_roles()
    applied.start(role for role in roles if role.command[0] == "dask")
    # A pod that is started again finds the keys of the one before.
    assert [applied.run(role) for role in first * 2] == [0, 0]
    (daemon,) = (role for role in roles if role.command[0] == "gmpd")
    applied.start([daemon])
    applied.await_probes(roles)
    with gmpd.Client(applied.here(daemon, daemon.env["GMPD_RUNTIME_DIR"])) as client:
        jobs_run_on_each_host(client, hosts_of(roles))
    head = applied.here(daemon, daemon.env["GMPD_CLUSTER__ADDRESS"]).removeprefix("tls://")
    place, port = head.split(":")
    shown = ssl.get_server_certificate((place, int(port)))
    assert shown.split() == (tls / "tls.crt").read_text().split()
    key = applied.directory / "alice.key"
    assert applied.run(daemon, "gmpd", "keys", "add", "alice") == 0
    export = f"umask 077; gmpd keys export alice --to localhost:7411 >{key}"
    assert applied.run(daemon, "sh", "-c", export) == 0
    with gmpd.Client(key=str(key)) as client:
        future = client.submit(math.sqrt, 4)
        with pytest.raises(NotRegistered):  # it was let in
            future.result(30)
    assert applied.end(daemon.name) == 0


def _as_its_head_says(tls: Path) -> None:
    """Make certificates by the command that stands in the manifest."""
    lines = deployed.MANIFEST.read_text().replace("\\\n#", "").splitlines()
    (command,) = (line.lstrip("# ") for line in lines if line.startswith("#   openssl"))
    subprocess.run(command.split(), cwd=tls, check=True, capture_output=True)
    shutil.copy(tls / "tls.crt", tls / "ca.crt")
