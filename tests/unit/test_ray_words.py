"""The words of Ray in those of gmpd: names of nodes, and errors in a line."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="gmpd[ray] is not installed")

from ray.exceptions import ActorUnschedulableError, RayError, RayTaskError

from gmpd.cluster.port import ClusterError, open_engine
from gmpd.cluster.ray import brief, name_of


def test_a_node_is_named_by_its_operator_or_address_and_its_id() -> None:
    row = {"NodeName": "north", "NodeManagerAddress": "10.0.0.5", "NodeID": "ab12" * 14}
    assert name_of(row) == "north-ab12ab12"
    assert name_of(row | {"NodeName": ""}) == "10.0.0.5-ab12ab12"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RayError("The actor died because its node has died. Node Id: ab12\n\tthe actor's"
                        " node was terminated"),
         "The actor died because its node has died. Node Id: ab12"),
        (RayError("The actor died because of an error raised in its creation task,"
                        " \x1b[36mray::A()\n  File 'x.py'\n    ^^^\nModuleNotFoundError: No module"
                        " named 'gmpd'"),
         "the actor of gmpd could not start there: ModuleNotFoundError: No module named 'gmpd'"),
        (ActorUnschedulableError("The node doesn't exist any more"),
         "The actor is not schedulable: The node doesn't exist any more"),
        (RayTaskError("f", "a page", ValueError("no exchange")), "ValueError: no exchange"),
        (RuntimeError("Version mismatch: started with\n Ray: 2.60\n Python: 3.11\nThis: 3.12"),
         "RuntimeError: Version mismatch: started with Ray: 2.60 Python: 3.11 This: 3.12"),
        (OSError(), "OSError: "),
    ],
)  # fmt: skip
def test_an_error_of_ray_is_told_in_a_line(error: BaseException, told: str) -> None:
    assert brief(error) == told.strip()


def test_a_page_is_cut() -> None:
    assert len(brief(ValueError("word " * 200))) <= 300


@pytest.mark.parametrize(
    ("address", "words"),
    [("", "ray://head:10001, or to auto"), ("local", "is not host:port"), ("ray://head", "host:")],
)
def test_an_address_that_is_none_is_refused(address: str, words: str) -> None:
    settings = {"address": address, "scheduler_file": "", "timeout_s": 1.0}
    with pytest.raises(ClusterError, match=words):
        open_engine("ray", settings)
