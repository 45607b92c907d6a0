"""docker-compose.yml and what it mounts, checked as far as that goes without an engine."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gmpd.config import Config
from tests.deployed import compose, yaml

ROOT = Path(__file__).parents[2]
COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False)


def mounts(name: str) -> list[tuple[str, str]]:
    """(what, where) of every bind mount and volume."""
    pairs = [volume.split(":")[:2] for volume in SERVICES[name].get("volumes", [])]
    return [(what, where) for what, where in pairs]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


# -- the file itself -----------------------------------------------------------------------------


def test_it_is_a_compose_file() -> None:
    pytest.importorskip("check_jsonschema", reason="it is in the extra dev")
    done = run(
        *(sys.executable, "-m", "check_jsonschema"),
        *("--builtin-schema", "vendor.compose-spec", "docker-compose.yml"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_itself_takes_it() -> None:
    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        command = ["docker", "compose"]
    elif shutil.which("docker-compose"):
        command = ["docker-compose"]
    else:
        pytest.skip("neither docker compose nor docker-compose is installed")
    for profile in ([], ["--profile", "load"], ["--profile", "cluster"]):
        done = run(*command, *profile, "config", "-q")
        assert done.returncode == 0, done.stderr


# -- every service -------------------------------------------------------------------------------


@each_service
def test_what_is_mounted_exists_or_is_a_declared_volume(name: str) -> None:
    for what, where in mounts(name):
        assert where.startswith("/")
        if what.startswith("."):
            assert (ROOT / what).exists(), what
        else:
            assert what in COMPOSE["volumes"], what


@each_service
def test_files_of_this_repository_are_mounted_for_reading_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        assert not volume.startswith(".") or volume.endswith(":ro"), volume


@each_service
def test_who_is_waited_for_to_be_healthy_says_whether_it_is(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert SERVICES[other]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@each_service
def test_images_are_pinned(name: str) -> None:
    service = SERVICES[name]
    if "build" not in service:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])


@each_service
def test_nothing_runs_as_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert f"AS {service['build']['target']}\n" in DOCKERFILE
    else:
        assert not service["user"].startswith(("0", "root"))
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True


@each_service
def test_ports_are_this_machines_own(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@each_service
def test_every_service_is_given_time_to_stop(name: str) -> None:
    assert "stop_grace_period" in SERVICES[name]


# -- how they fit together -----------------------------------------------------------------------


def test_the_daemon_understands_its_settings_and_may_drain() -> None:
    service = SERVICES["gmpd"]
    config = Config.load(env={k: str(v) for k, v in service["environment"].items()}, files=[])
    assert seconds(service["stop_grace_period"]) > config.daemon.drain_timeout
    assert config.http.listen == "0.0.0.0:7412"
    target = yaml.safe_load((ROOT / "config/prometheus/targets/compose.yml").read_text())
    assert target == [{"targets": ["gmpd:7412"]}]
    assert config.http.hosts == ("gmpd:7412",)


def test_the_daemon_of_the_cluster_understands_its_settings_and_may_drain() -> None:
    service = SERVICES["coordinator"]
    config = Config.load(env={k: str(v) for k, v in service["environment"].items()}, files=[])
    assert seconds(service["stop_grace_period"]) > config.daemon.drain_timeout
    target = yaml.safe_load((ROOT / "config/prometheus/targets/cluster.yml").read_text())
    assert target == [{"targets": list(config.http.hosts)}]
    port = config.http.listen.partition(":")[2]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert (config.cluster.engine, config.cluster.address) == ("dask", "tcp://head:8786")
    assert "--port=8786" in SERVICES["head"]["command"]


def test_hosts_find_the_modules_of_the_daemon_that_uses_them() -> None:
    modules = [pair for pair in mounts("coordinator") if pair[1].startswith("/srv")]
    for name in ("host-1", "host-2"):
        assert modules == [pair for pair in mounts(name) if pair[1].startswith("/srv")]
        assert config_word(name, "tcp://") == SERVICES["coordinator"]["environment"][
            "GMPD_CLUSTER__ADDRESS"
        ].removeprefix("tcp://")
        assert float(SERVICES[name]["cpus"]) == float(config_word(name, "--nthreads="))
        assert f"localhost{config_word(name, '--dashboard-address=')}/health" in str(
            SERVICES[name]["healthcheck"]["test"]
        )


def config_word(name: str, start: str) -> str:
    """The rest of the word of a service's command that begins so."""
    (word,) = (word for word in SERVICES[name]["command"] if word.startswith(start))
    return str(word).removeprefix(start)


def test_by_default_prometheus_looks_where_the_gateway_is() -> None:
    target = yaml.safe_load((ROOT / "config/prometheus/targets/gmpd.yml").read_text())
    assert target == [{"targets": [Config().http.listen]}]


def test_locust_reaches_the_daemons_socket_as_the_same_user() -> None:
    assert ("run", "/run/gmpd") in mounts("gmpd")
    assert ("run", "/run/gmpd") in mounts("locust")
    options = COMPOSE["volumes"]["run"]["driver_opts"]["o"]
    assert options == "uid=10001,gid=10001,mode=0700"
    assert "USER 10001:10001" in DOCKERFILE
    assert ("./loadtests", "/srv/loadtests") in mounts("gmpd")


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = ROOT / "config/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    prometheus = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/gmpd.yml").read_text())["providers"]
    assert ("./config/grafana/dashboards", provider["options"]["path"]) in mounts("grafana")
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/gmpd-overview.json"
    assert json.loads((ROOT / "config/grafana/dashboards/gmpd-overview.json").read_text())


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (apt-get install prometheus)",
)
def test_prometheus_takes_the_files_as_they_are_mounted(tmp_path: Path) -> None:
    for what, where in mounts("prometheus"):
        if what.startswith("."):
            inside = tmp_path / where.removeprefix("/etc/prometheus/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            source = ROOT / what
            copy: Any = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, inside)
    done = run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout


# -- the image -----------------------------------------------------------------------------------


def test_the_image_is_built_from_pinned_bases_and_runs_as_a_number() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    names = {name for _, name in stages}
    for base, _ in stages:
        assert base in names or re.fullmatch(r"python:3\.\d+-slim-bookworm", base)
    assert DOCKERFILE.rstrip().splitlines()[-1] == 'CMD ["gmpd", "serve"]'


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in patterns if line.startswith("!")}
    assert "*" in patterns
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == kept
    ignored = [line for line in patterns if line and not line.startswith(("#", "!", "*"))]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored)
