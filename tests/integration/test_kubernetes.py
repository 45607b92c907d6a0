"""config/kubernetes/cluster.yaml, checked as far as that goes without a cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gmpd.config import Config
from tests.deployed import MANIFEST, environment, manifest, named

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = named("Deployment")
PODS = {name: each["spec"]["template"]["spec"] for name, each in DEPLOYMENTS.items()}
CONTAINERS = [
    pytest.param(name, container, id=container["name"])
    for name, pod in PODS.items()
    for container in [*pod.get("initContainers", ()), *pod["containers"]]
]

each_pod = pytest.mark.parametrize("name", PODS)
each_container = pytest.mark.parametrize(("name", "container"), CONTAINERS)


def selected_by(labels: dict[str, str]) -> list[str]:
    """The deployments whose pods have these labels."""
    return [
        name
        for name, each in DEPLOYMENTS.items()
        if labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    ]


def ports_of(name: str) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for container in PODS[name]["containers"]
        for port in container["ports"]
    }


# -- the file itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.28", "latest"])
def test_kubernetes_knows_all_that_it_says(version: str) -> None:
    validate: Any = pytest.importorskip(
        "kubernetes_validate", reason="it is in the extra dev, for the oldest Python"
    )
    if version == "latest":
        version = validate.latest_version()
    for document in manifest():
        validate.validate(document, version, strict=True)


def test_it_names_no_namespace_and_nothing_twice() -> None:
    documents = manifest()
    assert all("namespace" not in each["metadata"] for each in documents)
    names = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert len(set(names)) == len(names)


def test_the_commands_above_it_name_what_is_there() -> None:
    text = MANIFEST.read_text()
    deployments = re.findall(r"deploy/([\w-]+)|scale deployment ([\w-]+)", text)
    assert {name for pair in deployments for name in pair if name} <= set(DEPLOYMENTS)
    (secret,) = set(re.findall(r"secret generic ([\w-]+)", text))
    used = {
        volume["secret"]["secretName"]
        for pod in PODS.values()
        for volume in pod["volumes"]
        if "secret" in volume
    }
    assert used == {secret}
    assert str(MANIFEST.relative_to(ROOT)) in text


# -- every pod and container ---------------------------------------------------------------------


@each_pod
def test_pods_are_those_that_their_deployment_selects(name: str) -> None:
    assert name in selected_by(DEPLOYMENTS[name]["spec"]["selector"]["matchLabels"])
    assert len(selected_by(DEPLOYMENTS[name]["spec"]["selector"]["matchLabels"])) == 1


@each_pod
def test_pods_run_as_the_images_user_without_a_token(name: str) -> None:
    pod = PODS[name]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    user = f"{context['runAsUser']}:{context['runAsGroup']}"
    assert f"USER {user}\n" in (ROOT / "Dockerfile").read_text()
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    # Or Kubernetes puts variables named GMPD_... into the containers.
    assert pod["enableServiceLinks"] is False


@each_container
def test_containers_can_change_nothing_and_have_limits(
    name: str, container: dict[str, Any]
) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for part in ("requests", "limits"):
        assert set(container["resources"][part]) == {"cpu", "memory"}
    assert "FROM base AS cluster\n" in (ROOT / "Dockerfile").read_text()
    assert container["image"] == "gmpd-cluster:local"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in PODS[name]["volumes"]}


@each_pod
def test_a_containers_health_is_asked_for_and_its_words_name_its_ports(name: str) -> None:
    (container,) = PODS[name]["containers"]
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[kind]
        assert "exec" in probe or probe["httpGet"]["port"] in ports_of(name)
    said = " ".join([*container["args"], *environment(container).values()])
    for port in ports_of(name).values():
        assert re.search(rf"[=:]{port}\b", said), port


# -- how they fit together -----------------------------------------------------------------------


def test_services_lead_to_the_ports_of_their_pods() -> None:
    for name, service in named("Service").items():
        assert selected_by(service["spec"]["selector"]) == [name]
        for port in service["spec"]["ports"]:
            assert ports_of(name)[port["targetPort"]] == port["port"]


def test_policies_open_ports_that_pods_have_to_pods_that_there_are() -> None:
    assert set(named("NetworkPolicy")) == set(PODS)
    for name, policy in named("NetworkPolicy").items():
        assert selected_by(policy["spec"]["podSelector"]["matchLabels"]) == [name]
        opened: set[str] = set()
        for rule in policy["spec"]["ingress"]:
            opened |= {port["port"] for port in rule["ports"]}
            for peer in rule["from"]:
                labels = peer["podSelector"].get("matchLabels", {})
                assert labels == {"gmpd-client": "true"} or selected_by(labels)
        assert opened == set(ports_of(name)) - {"health"}


@pytest.mark.parametrize("name", ["gmpd-head", "gmpd-host"])
def test_dasks_ports_are_open_to_the_pods_that_use_them(name: str) -> None:
    """Hosts and the daemon call the scheduler; the scheduler and the daemon call hosts."""
    (rule,) = named("NetworkPolicy")[name]["spec"]["ingress"]
    found = {
        each for peer in rule["from"] for each in selected_by(peer["podSelector"]["matchLabels"])
    }
    assert found == set(PODS) - {name}


def test_the_daemon_understands_its_settings_and_may_drain() -> None:
    pod = PODS["gmpd"]
    (container,) = pod["containers"]
    env = environment(container)
    config = Config.load(env=env, files=[])
    assert pod["terminationGracePeriodSeconds"] > config.daemon.drain_timeout
    assert config.cluster.engine == "dask"
    assert config.cluster.address == "tls://gmpd-head:8786"
    assert ports_of("gmpd-head")["dask"] == 8786
    assert config.http.hosts == ("gmpd:7412",)
    for probe in (container["startupProbe"], container["readinessProbe"]):
        assert probe["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "gmpd:7412"}]
    assert config.tcp.enabled
    assert config.tcp.all_interfaces
    # What has to outlive the pod is on the volume that does, in a directory of the daemon's own.
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert set(claims.values()) == set(named("PersistentVolumeClaim"))
    (mount,) = (each for each in container["volumeMounts"] if each["name"] in claims)
    assert Path(config.daemon.state_dir).parent == Path(mount["mountPath"])
    assert Path(config.tcp.keys).is_relative_to(config.daemon.state_dir)


def test_dask_knows_its_settings() -> None:
    pytest.importorskip("distributed", reason="gmpd[dask] is not installed")
    import dask

    (data,) = (each["data"] for each in named("ConfigMap").values())
    for variable in data:
        key = variable.removeprefix("DASK_").lower().replace("__", ".")
        dask.config.get(key)  # or it raises KeyError
    for name, pod in PODS.items():
        for container in pod["containers"]:
            assert {"configMapRef": {"name": "gmpd-dask"}} in container["envFrom"], name
