"""The JSON API: what each route answers, and what bad input gets."""

from __future__ import annotations

import socket
from typing import Any

import msgpack
import pytest

from gmpd import codec
from gmpd.gateway import peer
from gmpd.gateway.api import openapi
from gmpd.gateway.api.dispatch import BODY_MAX
from gmpd.gateway.api.routes import ROOT, ROUTES
from tests.api_served import ID, UNREACHABLE, Served, answers, g_row, job_row, p_row, served

ALL = frozenset({"submit", "cancel", "retry"})


def get(site: Served, path: str, status: int = 200) -> Any:
    found, body, _ = site.ask(f"{ROOT}{path}")
    assert found == status, body
    return body


def post(site: Served, path: str, body: Any, status: int = 200, **headers: str) -> Any:
    found, answer, _ = site.ask(f"{ROOT}{path}", "POST", body, headers)
    assert found == status, answer
    return answer


# -- what it answers -----------------------------------------------------------------------------


def test_every_route_that_looks_answers() -> None:
    with served() as site:
        assert get(site, "/snapshot")["snapshot"]["procs"] == 2
        assert [each["p"] for each in get(site, "/ps")["ps"]] == [0, 1]
        assert get(site, "/ps/1")["p"]["p"] == 1
        assert get(site, "/jobs")["counts"] == {"queued": 2, "done": 5}
        assert get(site, "/jobs")["jobs"][0]["id"] == ID
        assert get(site, f"/jobs/{ID}")["story"][0]["pid"] == 3
        assert get(site, f"/jobs/{ID}/result") | {"ran_s": 0} == {
            "id": ID, "ended": True, "outcome": "ok", "value": None, "error": None, "ran_s": 0,
            "attempt": 1, "text": "",
        }  # fmt: skip
        assert get(site, f"/jobs/{ID}/log")["left_out"] == 4
        assert get(site, "/registered")["functions"][0]["options"]["retries"] == 2
        assert get(site, "/functions")["functions"][0]["finished"]
        assert get(site, "/clients")["total"] == 0
        assert get(site, "/failures?function=m:f&limit=500")["failures"][0]["message"] == "no"
        assert get(site, "/config")["settings"][0]["key"] == "daemon.procs"
        assert isinstance(get(site, "/warnings")["warnings"], list)
        assert get(site, "/openapi.json") == openapi.document()
        status, body, _ = site.ask(f"{ROOT}/jobs", "HEAD")
        assert (status, body) == (200, "")


def test_gs_are_filtered_sorted_and_paged() -> None:
    told = answers()
    told["gs"]["ps"][0]["rows"] = [
        g_row(1, state="running", since_s=None), g_row(2, function="other:g"),
        *(g_row(i) for i in range(3, 10)),
    ]  # fmt: skip
    told["gs"]["ps"][0]["gs"] = 1_000_000
    with served(told) as site:
        page = get(site, "/gs?limit=3")
        assert [g["id"] for g in page["gs"]] == [9, 8, 7]
        assert (page["matching"], page["seen"], page["total"], page["silent"]) == (
            9, 9, 1_000_000, [1],
        )  # fmt: skip
        assert [g["id"] for g in get(site, "/gs?limit=3&offset=6")["gs"]] == [3, 2, 1]
        assert [g["id"] for g in get(site, "/gs?order=up&limit=2")["gs"]] == [2, 3]
        assert [g["id"] for g in get(site, "/gs?state=running")["gs"]] == [1]
        assert [g["id"] for g in get(site, "/gs?function=other")["gs"]] == [2]
        assert [g["id"] for g in get(site, "/gs?sort=id&order=up&limit=2")["gs"]] == [1, 2]
        assert get(site, "/gs?p=1")["gs"] == []
        # One question serves all readers of the same moment.
        assert sum(method == "gs" for method, *_ in site.link.asked) <= 7


def test_a_g_has_its_stack_its_job_and_its_last_events() -> None:
    told = answers()
    with served(told) as site:
        assert [g["why"]["code"] for g in get(site, "/gs")["gs"]] == ["receive"] * 3
        g = get(site, "/ps/0/gs/1")
        assert (g["answered"], g["epoch"], g["pid"], g["job"]) == (True, 3, 50, ID)
        assert g["stack"] == "goroutine 1"
        assert g["g"]["why"]["sentence"] == "It has waited 1 s for a value from a channel."
        assert g["story"] == [{"kind": "step", "ago_s": 2.0, "took_s": 0.0005, "reason": "sleep"}]
        assert ("g", {"p": 0, "id": 1, "wait_s": 0.5}) in site.link.asked
        assert get(site, "/ps/0/gs/1?epoch=3")["id"] == 1
        assert "another worker now" in get(site, "/ps/0/gs/1?epoch=2", 404)["error"]
        told["g"] = {"ps": [{"p": 0, "answered": True, "gs": 0, "text": "", "status": p_row(0)}]}
        assert "it has ended" in get(site, "/ps/0/gs/2", 404)["error"]
        deaf = p_row(0, state="deaf", running="m:slow", running_s=2.5)
        told["g"] = {"ps": [{"p": 0, "answered": False, "status": deaf}]}
        g = get(site, "/ps/0/gs/3")
        assert (g["answered"], g["g"]) == (False, None)
        assert "P0 did not answer: it has been running m:slow for 2.5 s" in g["silence"]
        told["g"] = {"ps": []}
        assert get(site, "/ps/9/gs/4", 404)["error"] == "there is no P9"


def test_pages_of_jobs_follow_each_other() -> None:
    told = answers()
    told["volatile_jobs"] = {"rows": [job_row(volatile=True, state=0)], "next": "4.17"}
    told["jobs"] = [job_row(number=9), job_row(number=8)]
    with served(told) as site:
        assert get(site, "/jobs?limit=2")["next"] == "v4.17"
        assert get(site, "/jobs?limit=2&after=v4.17")["next"] == "v4.17"
        assert get(site, "/jobs?limit=2&after=d9")["next"] == "d8"
        assert ("jobs", {"limit": 2, "before": 9, "state": None, "function": ""}) in site.link.asked
        told["volatile_jobs"]["next"] = None
        told["volatile_jobs"]["rows"] *= 2
        assert get(site, "/jobs?limit=2&state=queued")["next"] == "d999999999999999"
        assert get(site, "/jobs?kind=volatile&limit=2&function=x")["next"] is None


def test_results_are_plain_data_or_texts_and_nothing_is_unpickled() -> None:
    from gmpd.codec import encode, encode_error

    told, told_value = answers(), {"a": [1, b"\x01"], "nan": float("nan")}
    with served(told) as site:
        told["result"]["value"] = msgpack.packb(told_value)
        value = get(site, f"/jobs/{ID}/result")["value"]
        assert value == {"a": [1, {"base64": "AQ=="}], "nan": None}
        told["result"]["value"] = encode(object).data  # a pickle
        assert "only a Python client may open" in get(site, f"/jobs/{ID}/result", 409)["error"]
        told["result"] |= {"state": 4, "value": encode_error(KeyError("k")), "outcome": "error"}
        assert get(site, f"/jobs/{ID}/result")["error"]["type"] == "KeyError"
        told["find"] = [job_row(state=0)]
        assert get(site, f"/jobs/{ID}/result")["ended"] is False
        told["find"] = [job_row(state=0, volatile=True)]
        assert "is volatile" in get(site, f"/jobs/{ID}/result", 409)["error"]
        told["find"] = [None]
        for path in (f"/jobs/{ID}", f"/jobs/{ID}/result"):
            assert ID in get(site, path, 404)["error"]


def test_a_job_says_why_it_is_where_it_is() -> None:
    told, stage = answers(), {"stage": "held", "stalled": "", "holder": "ab"}
    with served(told) as site:
        assert get(site, f"/jobs/{ID}")["why"] == {
            "code": "done", "sentence": "It is done.", "hint": "", "facts": {},
        }  # fmt: skip
        told["find"] = [job_row(state=0, ended_ms=None, volatile=True, stage=stage)]
        why = get(site, f"/jobs/{ID}")["why"]
        assert (why["code"], why["facts"]) == ("unique", {"holder": "ab"})
        assert why["sentence"].startswith("Job ab has its unique key")
        told["find"] = [job_row(state=0, ended_ms=None, run_at_ms=4_000_000_000_000)]
        assert get(site, f"/jobs/{ID}")["why"]["code"] == "delayed"


def test_a_job_without_output_has_an_empty_log() -> None:
    told = answers() | {"log": None}
    with served(told) as site:
        assert get(site, f"/jobs/{ID}/log") == {
            "attempt": 0, "text": "", "left_out": 0, "runs": False,
        }  # fmt: skip
        assert "keeps no output" in get(site, f"/jobs/{ID}/log?attempt=2", 404)["error"]
        told["find"] = [None]
        assert "knows no job" in get(site, f"/jobs/{ID}/log", 404)["error"]


def test_a_job_is_submitted_by_the_name_of_a_registered_function() -> None:
    with served(allow=ALL) as site:
        call = {"function": "m:f", "args": [1, "x"], "kwargs": {"k": None}}
        assert post(site, "/jobs", call | {"options": {"timeout": 9}}, 201) == {
            "id": ID, "new": True,
        }  # fmt: skip
        (_, name, ((_, blob),), options, stored) = site.link.asked[-1]
        assert name == "m:f"
        assert blob.data[:1] == b"\x93"  # plain: nothing that a worker would unpickle
        assert options == {
            "retries": 2, "timeout": 9.0, "durable": True, "plain": True, "capture": True,
        }  # fmt: skip
        assert stored["keep"] == 5000
        wrong = post(site, "/jobs", {"function": "os:system", "args": ["x"]}, 404)
        assert wrong["field"] == "$.function"
        assert post(site, "/jobs", {"function": "m:f", "args": [2**70]}, 422)["field"] == "$.args"
        site.link.answers["enqueue"] = {"verdicts": [3], "ids": [b"\x01" * 16]}
        assert post(site, "/jobs", {"function": "m:f"}, 201) == {"id": "01" * 16, "new": False}


@pytest.mark.parametrize(
    ("header", "travels"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", True),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", False),
        ("a, 5", False),
        ("", False),
    ],
)
def test_a_job_belongs_to_the_trace_of_its_request(header: str, travels: bool) -> None:
    """And an invalid one is ignored, as the standard says."""
    with served(allow=ALL) as site:
        headers = {"traceparent": header, "tracestate": "vendor=x"}
        assert post(site, "/jobs", {"function": "m:f"}, 201, **headers)["new"]
        ((_, blob),) = site.link.asked[-1][2]
        assert (blob.data[:1] == codec.MARK) == travels
        if travels:
            carrier = msgpack.unpackb(codec.carried(blob.data)[0])[1]
            assert carrier == headers
        wrong = post(site, "/jobs?traceparent=00", {"function": "m:f"}, 400)
        assert wrong["field"] == "$.traceparent"


def test_jobs_are_cancelled_and_tried_again() -> None:
    with served(allow=ALL) as site:
        assert post(site, f"/jobs/{ID}/cancel", {})["changed"] is True
        assert post(site, f"/jobs/{ID}/cancel", {"force": True})["changed"] is True
        assert ("ask_jobs", "force", ID, {}) in site.link.asked
        assert post(site, f"/jobs/{ID}/retry", {}) == {
            "id": ID, "changed": False, "why": "it is done, or runs",
        }  # fmt: skip


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/nowhere", 404, ""), ("", 404, ""), ("/", 404, ""), ("/jobs/", 404, ""),
        ("/ps/77", 404, ""), ("/ps/x", 400, "$.p"), ("/ps/-1", 400, "$.p"),
        ("/gs?limit=0", 400, "$.limit"), ("/gs?limit=501", 400, "$.limit"),
        ("/gs?limit=1&limit=2", 400, "$.limit"), ("/gs?p=null", 400, "$.p"),
        ("/gs?sort=size", 400, "$.sort"), ("/gs?colour=red", 400, "$.colour"),
        (f"/gs?function={'x' * 201}", 400, "$.function"), ("/snapshot?x=1", 400, "$.x"),
        ("/jobs/xyz", 400, "$.id"), (f"/jobs/{ID}?id={ID}", 400, "$.id"),
        ("/jobs?after=17", 400, "$.after"), ("/jobs?state=tired", 400, "$.state"),
        ("/events?period_ms=1", 400, "$.period_ms"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(path: str, status: int, field: str) -> None:
    with served() as site:
        assert get(site, path, status)["field"] == field


def test_a_wrong_body_is_named() -> None:
    with served(allow=ALL) as site:

        def told(body: Any, **headers: str) -> tuple[int, str]:
            status, answer, _ = site.ask(f"{ROOT}/jobs", "POST", body, headers)
            return status, answer["field"]

        assert told(b"{") == (400, "$")
        assert told(b"\xff") == (400, "$")
        assert told(b"") == (400, "$")
        assert told(b"[]") == (400, "$")
        assert told({}) == (400, "$.function")
        assert told({"function": "m:f", "argz": []}) == (400, "$.argz")
        assert told({"function": 7}) == (400, "$.function")
        assert told({"function": "m:f", "options": {"retries": -1}}) == (400, "$.options.retries")
        assert told({"function": "m:f", "options": {"name": "x"}}) == (400, "$.options.name")
        assert told(b"{}", **{"Content-Type": "text/plain"}) == (415, "$")
        assert told(b" " * (BODY_MAX + 1)) == (413, "$")
        assert told(b"[" * 100_000)[0] == 400


def test_nothing_changes_unless_it_is_allowed() -> None:
    with served() as site:
        for route in ROUTES:
            path = route.path.format(id=ID) if route.method == "POST" else ""
            if path:
                told = post(site, path, {}, 403)
                assert route.permission in told["hint"]
        assert not site.link.asked


def test_refusals_are_json_and_are_counted() -> None:
    with served(token="t" * 16) as site:
        for headers, status in (
            ({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403), ({"X-Forwarded-For": "10.0.0.9"}, 401),
        ):  # fmt: skip
            found, body, _ = site.ask(f"{ROOT}/snapshot", headers=headers)
            assert (found, bool(body["error"])) == (status, True)
        status, _, headers_out = site.ask(f"{ROOT}/snapshot", "DELETE")
        assert (status, headers_out["Allow"]) == (405, "GET, HEAD")
        _, text, _ = site.ask("/metrics")
        for reason, n in (("host", 1), ("origin", 2), ("token", 1), ("method", 1)):
            line = f'gmpd_http_requests_refused_total{{reason="{reason}"}} {n}.0'
            assert line in text.splitlines()
        found, _, _ = site.ask(
            f"{ROOT}/snapshot",
            headers={"X-Forwarded-For": "10.0.0.9", "Authorization": "Bearer " + "t" * 16},
        )
        assert found == 200


def test_another_user_needs_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "is_own", lambda _sock: False)
    with served() as site:
        assert "its own user" in get(site, "/snapshot", 403)["error"]
        assert site.ask("/healthz")[0] == 200


def test_the_user_at_the_other_end_is_known_on_this_machine() -> None:
    import os

    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            listening = socket.create_server((host, 0), family=family)
        except OSError:
            continue  # a machine without IPv6
        with listening, socket.create_connection(listening.getsockname()[:2]):
            accepted, _ = listening.accept()
            with accepted:
                assert peer.peer_uid(accepted) == os.geteuid()
                assert peer.is_own(accepted)
    assert not peer.is_own(None)
    with socket.socket() as unconnected:
        assert peer.peer_uid(unconnected) is None


def test_a_daemon_that_is_gone_or_refuses_is_told() -> None:
    told = answers() | {"snapshot": UNREACHABLE, "clients": UNREACHABLE}
    del told["jobs"]
    with served(told) as site:
        assert get(site, "/snapshot", 503)["error"] == "nobody there"
        assert get(site, "/clients", 503)["error"] == "nobody there"
        assert "no answer to jobs" in get(site, "/jobs", 409)["error"]
        told["config"] = {"settings": [{"key": 5}]}
        assert "this version reads" in get(site, "/config", 503)["error"]
        told["registered"] = RuntimeError("a bug")
        assert get(site, "/registered", 500)["error"] == "RuntimeError: a bug"


def test_too_many_questions_at_once_are_refused() -> None:
    with served(rate=3) as site:
        found = [site.ask(f"{ROOT}/jobs/{ID}/log")[0] for _ in range(12)]
        assert found[0] == 200
        assert 429 in found
        assert {200, 429} == set(found)
