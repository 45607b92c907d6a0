"""The words about a cluster: as users name one, and as `gmpd status` shows it."""

from __future__ import annotations

import pytest

from gmpd.cli.status import cluster_lines
from gmpd.cluster.port import KNOWN, ClusterError, open_engine
from gmpd.config import split_cluster
from gmpd.status import Cluster, HostStatus


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("dask://head:8786", ("dask", "tcp://head:8786", "")),
        ("dask://[::1]:8786", ("dask", "tcp://[::1]:8786", "")),
        ("dask:/shared/scheduler.json", ("dask", "", "/shared/scheduler.json")),
        ("ray://head:10001", ("ray", "ray://head:10001", "")),
        ("ray:auto", ("ray", "auto", "")),
        ("ray:head:6379", ("ray", "head:6379", "")),
    ],
)
def test_a_cluster_is_named_by_its_engine_and_place(where: str, parts: tuple[str, ...]) -> None:
    assert split_cluster(where) == parts


@pytest.mark.parametrize("where", ["", "dask", "dask:", "dask://", "ray:", "head/x:8786", "://x"])
def test_another_text_names_no_cluster(where: str) -> None:
    with pytest.raises(ValueError, match="names no engine"):
        split_cluster(where)


def test_an_engine_whose_library_is_missing_names_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(KNOWN, "ray", ("no_such_library_of_ray:Engine", "ray"))
    with pytest.raises(ClusterError, match=r"pip install 'gmpd\[ray\]'"):
        open_engine("ray", {})


@pytest.mark.parametrize("name", ["nothing", "gmpd.cluster.port:Missing", "", "gmpd.nowhere:X"])
def test_an_unknown_engine_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ClusterError, match="is no engine: take dask, ray"):
        open_engine(name, {})


def test_a_status_has_a_line_for_each_host() -> None:
    hosts = [
        HostStatus("tcp://a:1", 8, "running", p=32768, started=3, jobs_finished=1200),
        HostStatus("tcp://b:1", 4, "refused", "it has Python 3.12.1"),
    ]
    assert cluster_lines(Cluster("dask", "tcp://head:8786", "", hosts)) == [
        "dask at tcp://head:8786",
        "  host tcp://a:1 running, 8 cores, 3 begun, 1,200 finished",
        "  host tcp://b:1 refused, 4 cores: it has Python 3.12.1",
    ]
    assert cluster_lines(Cluster()) == []
    assert cluster_lines(Cluster("dask", "x", "nothing answers")) == ["dask at x: nothing answers"]
