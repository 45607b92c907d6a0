"""A real Prometheus over a real daemon under mixed load: every query of ours has an answer.

Needs Debian's package ``prometheus`` (server and promtool).
"""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gmpd.gateway.collector import Reading, SnapshotCollector
from gmpd.gateway.metrics import METRICS, Kind
from tests.fake_coordinator import FakeCoordinator
from tests.gateway_process import Gateway
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "prometheus"
BOARD = json.loads((ROOT / "config/grafana/dashboards/gmpd-overview.json").read_text())

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not installed (apt-get install prometheus)",
)
pytestmark = needs_prometheus

#: What Grafana would put in for its variables, at a scrape a second.
VARIABLES = {"$__rate_interval": "10s", "$__range": "1m", "$instance": ".*"}


def promtool(*arguments: str) -> str:
    """The output of promtool; AssertionError when it objects."""
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """A server of its own, scraping one target every second with the rules of this repository."""

    def __init__(self, directory: Path, target: str) -> None:
        text = (CONFIG / "prometheus.yml").read_text()
        for fast in ("scrape_interval", "evaluation_interval"):
            text, changed = re.subn(rf"{fast}: 5s", f"{fast}: 1s", text)
            assert changed == 1, fast
        text = text.replace("scrape_timeout: 2s", "scrape_timeout: 1s")
        (directory / "prometheus.yml").write_text(text)
        shutil.copytree(CONFIG / "rules", directory / "rules")
        (directory / "targets").mkdir()
        (directory / "targets" / "gmpd.yml").write_text(json.dumps([{"targets": [target]}]))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={directory}/prometheus.yml",
                    f"--storage.tsdb.path={directory}/data",
                    f"--web.listen-address={self.address}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )

    def api(self, path: str, **parameters: str) -> Any:
        """The data of an API answer; AssertionError with Prometheus' own words when it refuses."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                body = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert body["status"] == "success", body
        return body["data"]

    def is_ready(self) -> bool:
        """Whether it serves."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1):
                return True
        except urllib.error.HTTPError as error:
            error.close()  # since 3.15 its file warns when it is left open
            return False
        except OSError:
            return False

    def values(self, query: str) -> list[float]:
        """The finite values of an instant query."""
        found = self.api("query", query=query)
        values = [float(series["value"][1]) for series in found["result"]]
        return [value for value in values if math.isfinite(value)]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)


def queries() -> list[tuple[str, str]]:
    """(panel, query) of every query of the dashboard, variables put in."""
    found = []
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            found.append((panel["title"], query))
    return found


# -- the files, without a server -----------------------------------------------------------------


def test_the_configuration_is_right() -> None:
    assert "2 rule files found" in promtool("check", "config", str(CONFIG / "prometheus.yml"))


def test_the_rules_are_right_to_the_last_remark() -> None:
    files = [str(path) for path in sorted((CONFIG / "rules").glob("*.yml"))]
    promtool("check", "rules", "--lint=all", "--lint-fatal", *files)


def test_the_rules_do_what_they_say() -> None:
    promtool("test", "rules", str(CONFIG / "tests" / "gmpd.test.yml"))


def test_every_query_of_the_dashboard_is_understood(tmp_path: Path) -> None:
    lines = ["groups:", "- name: dashboard", "  rules:"]
    for number, (_, query) in enumerate(queries()):
        assert "$" not in query
        lines += [f"  - record: query_{number}", f"    expr: {json.dumps(query)}"]
    rules = tmp_path / "queries.yml"
    rules.write_text("\n".join(lines))
    assert f"{len(queries())} rules found" in promtool("check", "rules", str(rules))


def test_promtool_finds_nothing_to_say_about_the_metrics() -> None:
    snapshot = json.loads((ROOT / "tests/data/snapshot.json").read_text())
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(lambda: Reading(snapshot, 0.5, True, {"ok": 3, "late": 1})))
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(registry),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_alert_has_a_test_and_a_page_of_what_to_do() -> None:
    alerts = re.findall(r"alert: (\w+)", (CONFIG / "rules/gmpd.alerts.yml").read_text())
    tested = re.findall(r"alertname: (\w+)", (CONFIG / "tests/gmpd.test.yml").read_text())
    runbook = (CONFIG / "runbook.md").read_text()
    assert alerts
    assert set(alerts) == set(tested) == set(re.findall(r"^## (\w+)", runbook, re.MULTILINE))
    for alert in alerts:
        assert f"#{alert.lower()}\n" in (CONFIG / "rules/gmpd.alerts.yml").read_text() + "\n"


def test_rules_and_dashboard_ask_only_for_what_is_exported() -> None:
    exported = {
        metric.name + ("_bucket" if metric.kind is Kind.HISTOGRAM else "") for metric in METRICS
    }
    exported |= {
        "gmpd_coordinator_process_cpu_seconds_total",
        "gmpd_coordinator_process_resident_memory_bytes",
    }
    rules = "".join(
        re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE)
        for path in (CONFIG / "rules").glob("*.yml")
    )
    # Names of recorded series hold colons and follow from these.
    asked = set(re.findall(r"(?<![:\w/])(?:gmpd|go)_\w+(?=[{\[) >])", rules))
    asked |= set(re.findall(r"(?:gmpd|go)_\w+", " ".join(query for _, query in queries())))
    assert asked <= exported


# -- a server over a gateway ---------------------------------------------------------------------


@pytest.fixture
def whole(short_tmp: Path) -> Iterator[Prometheus]:
    """Prometheus over a gateway whose coordinator knows of everything that can ever be counted."""
    coordinator = FakeCoordinator(f"ipc://{short_tmp}/c")
    coordinator.busy = True
    gateway = Gateway({"listen": "127.0.0.1:0", "client_endpoint": coordinator.endpoint})
    prometheus = Prometheus(short_tmp, gateway.wait_serving().host)
    try:
        wait_until(prometheus.is_ready, "Prometheus serves", timeout=30)
        yield prometheus
    finally:
        prometheus.close()
        gateway.close()
        coordinator.close()


def without_data(prometheus: Prometheus) -> list[tuple[str, str]]:
    """The queries of the dashboard to which there is no answer; refused ones raise."""
    return [(panel, query) for panel, query in queries() if not prometheus.values(query)]


def is_of_the_coordinators_process(query: str) -> bool:
    return "gmpd_coordinator_process_" in query


def test_every_query_has_an_answer_and_every_rule_can_be_evaluated(whole: Prometheus) -> None:
    def unanswered() -> list[tuple[str, str]]:
        # No process here has the snapshot's pid, so there is no process to read of.
        return [
            (panel, query)
            for panel, query in without_data(whole)
            if not is_of_the_coordinators_process(query)
        ]

    wait_until(lambda: not unanswered(), "every query of the dashboard has an answer", timeout=40)
    rules = [rule for group in whole.api("rules")["groups"] for rule in group["rules"]]
    written = "".join(path.read_text() for path in (CONFIG / "rules").glob("*.yml"))
    names = re.findall(r"^ *(?:- )?(?:alert|record): (\S+)", written, re.MULTILINE)
    assert sorted(rule["name"] for rule in rules) == sorted(names)
    assert {(rule["name"], rule["health"]) for rule in rules if rule["health"] != "ok"} == set()
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    wait_until(lambda: all(map(whole.values, recorded)), "every recorded series has a value")
    assert whole.api("targets")["activeTargets"][0]["health"] == "up"
    assert_picture_of_every_panel(whole)


def assert_picture_of_every_panel(prometheus: Prometheus) -> None:
    """The panels can be drawn without Grafana, too."""
    titles = [panel["title"] for panel in BOARD["panels"] if panel["type"] != "row"]
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "config/grafana/picture.py")),
            *(f"http://{prometheus.address}", "--minutes", "0.2", *titles),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    drawn = ElementTree.fromstring(done.stdout)
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert set(titles) <= texts
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) > 20
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polygon"))) > 10
