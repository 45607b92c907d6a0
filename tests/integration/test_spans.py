"""Spans of OpenTelemetry: of a program's submits, and of waits and runs in the worker of a daemon.
Those of the worker are read by a job from its exporter in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd import spans
from gmpd.cli.app import App
from gmpd.cli.private import private_client
from gmpd.errors import JobTimeout
from tests import tracing_sdk
from tests.durable_daemon import Daemon, serving
from tests.support import wait_until

MODULE = "tests.jobs_spans"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with serving(procs=1) as daemon:
        yield daemon


@pytest.fixture
def client(served: Daemon) -> gmpd.Client:
    return served.clients[0]


@pytest.fixture
def jobs() -> Iterator[Any]:
    with tracing_sdk.set_up() as module:
        yield module


class Trace:
    """All spans of one trace: of this process and of the workers."""

    def __init__(self, client: gmpd.Client, jobs: Any, trace_id: str, runs: int) -> None:
        self.client, self.jobs, self.id = client, jobs, trace_id
        found = wait_until(lambda: self._look(runs), f"{runs} run spans", timeout=60)
        assert found is not None
        self.rows = found

    def _look(self, runs: int) -> list[Row] | None:
        rows = {row["id"]: row for row in self.jobs.finished()}
        with disabled():
            seen = self.client.submit(self.jobs.finished).result(60)
        rows.update({row["id"]: row for row in seen})
        mine = [row for row in rows.values() if row["trace"] == self.id]
        return mine if sum(row["name"].startswith("run ") for row in mine) >= runs else None

    def of(self, name: str) -> list[Row]:
        """Spans by the first word of their name, in order."""
        named = [row for row in self.rows if row["name"].partition(" ")[0] == name]
        return sorted(named, key=lambda row: row["began"])


@contextmanager
def disabled() -> Iterator[None]:
    """Submits in it make no spans."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(spans.DISABLED, "django, gmpd")
        yield


def check_way(trace: Trace, around: Row, function: str, runs: int = 1) -> list[Row]:
    """Submit, wait and runs of one job, as they must hang together. Gives the runs."""
    (submit,) = trace.of("submit")
    assert (submit["name"], submit["kind"]) == (f"submit {MODULE}:{function}", "PRODUCER")
    assert submit["parent"] == around["id"]
    assert submit["attributes"]["messaging.system"] == "gmpd"
    ran = trace.of("run")
    assert len(ran) == runs
    for number, run in enumerate(ran, 1):
        assert (run["name"], run["kind"]) == (f"run {MODULE}:{function}", "CONSUMER")
        assert run["parent"] == submit["id"]
        assert run["attributes"]["gmpd.attempt"] == number
        assert run["attributes"]["messaging.destination.name"] == f"{MODULE}:{function}"
        assert run["began"] < run["ended"]
    (wait,) = trace.of("wait")
    assert (wait["parent"], wait["kind"]) == (submit["id"], "INTERNAL")
    assert submit["began"] <= wait["began"] <= wait["ended"] <= ran[0]["began"]
    return ran


def root_of(jobs: Any) -> Row:
    """The span of the program around a submit."""
    (row,) = [row for row in jobs.finished() if row["name"] == "program"]
    return row  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "inners"),
    [("plain", 1), ("coroutine", 1), ("own_child", 1), ("children", 2), ("copied", 1)],
)
def test_a_job_runs_in_the_trace_of_its_submit(
    client: gmpd.Client, jobs: Any, name: str, inners: int
) -> None:
    with jobs.tracer.start_as_current_span("program"):
        future = client.submit(getattr(jobs, name), "inner")
    around = future.result(60)
    root = root_of(jobs)
    trace = Trace(client, jobs, root["trace"], 1)
    (run,) = check_way(trace, root, name)
    assert run["id"] == around, "the job sees it as the current span"
    assert [row["parent"] for row in trace.of("inner")] == [run["id"]] * inners
    told = {key: run["attributes"][f"gmpd.{key}"] for key in ("job.id", "outcome", "function")}
    assert told == {"job.id": future.job_id, "outcome": "ok", "function": f"{MODULE}:{name}"}
    assert run["attributes"]["gmpd.p"] == "0"
    assert run["status"] == "UNSET"


def test_a_job_of_the_command_line_belongs_to_the_trace_of_its_environment(
    served: Daemon, client: gmpd.Client, jobs: Any
) -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    done = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "submit", f"{MODULE}:plain", "inner"],
        env={**served.env, "TRACEPARENT": f"00-{trace_id}-{span_id}-01"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    trace = Trace(client, jobs, trace_id, 1)
    (run,), (wait,) = trace.of("run"), trace.of("wait")
    assert (run["parent"], wait["parent"]) == (span_id, span_id)
    assert done.stdout.strip() == run["id"]
    assert [row["parent"] for row in trace.of("inner")] == [run["id"]]


@pytest.mark.parametrize(("name", "inners"), [("stream", 2), ("astream", 1)])
def test_a_generator_does_too(client: gmpd.Client, jobs: Any, name: str, inners: int) -> None:
    with jobs.tracer.start_as_current_span("program"):
        stream = client.stream(getattr(jobs, name), "inner")
    around = list(stream)
    root = root_of(jobs)
    trace = Trace(client, jobs, root["trace"], 1)
    (run,) = check_way(trace, root, name)
    assert around == [run["id"]] * inners
    assert [row["parent"] for row in trace.of("inner")] == around


def test_children_in_another_worker_belong_to_the_run_too(jobs: Any) -> None:
    with private_client(App(), 2, [MODULE]) as client:

        def migrated() -> bool:
            with jobs.tracer.start_as_current_span("program"):
                future = client.submit(jobs.wide, 60)
            own, children = future.result(60)
            assert {around for around, _ in children} == {own}
            return len({pid for _, pid in children}) == 2

        wait_until(migrated, "some go to the other worker", timeout=60)


@pytest.mark.parametrize("durable", [False, True])
def test_each_attempt_has_its_run(
    client: gmpd.Client, jobs: Any, short_tmp: Path, durable: bool
) -> None:
    with jobs.tracer.start_as_current_span("program"):
        how = client.options(retries=1, backoff=0.01, durable=durable)
        future = how.submit(jobs.fails, str(short_tmp / "attempts"))
    around = future.result(60)
    root = root_of(jobs)
    first, second = check_way(Trace(client, jobs, root["trace"], 2), root, "fails", 2)
    assert second["id"] == around
    assert (first["status"], second["status"]) == ("ERROR", "UNSET")
    ((event, told),) = first["events"]
    assert (event, told["exception.type"]) == ("exception", "ValueError")
    assert first["attributes"]["error.type"] == "ValueError"
    assert first["attributes"]["gmpd.job.id"] == future.job_id


def test_a_map_has_one_submit_and_a_run_for_each_chunk(client: gmpd.Client, jobs: Any) -> None:
    with jobs.tracer.start_as_current_span("program"):
        around = list(client.map(jobs.plain, ["inner"] * 40, chunksize=10))
    root = root_of(jobs)
    trace = Trace(client, jobs, root["trace"], 4)
    (submit,) = trace.of("submit")
    assert submit["attributes"]["gmpd.map"] is True
    runs = trace.of("run")
    assert [row["parent"] for row in runs] == [submit["id"]] * 4
    assert set(around) == {row["id"] for row in runs}
    waits = trace.of("wait")
    assert len(waits) == 4
    assert len(trace.of("inner")) == 40


def test_jobs_that_are_stored_together_have_one_submit(client: gmpd.Client, jobs: Any) -> None:
    with jobs.tracer.start_as_current_span("program"):
        ids = client.enqueue_many(jobs.plain, ["inner"] * 3)
    around = {client.job(id_).result(60) for id_ in ids}
    root = root_of(jobs)
    trace = Trace(client, jobs, root["trace"], 3)
    (submit,) = trace.of("submit")
    assert submit["parent"] == root["id"]
    assert around == {row["id"] for row in trace.of("run")}
    assert {row["attributes"]["gmpd.job.id"] for row in trace.of("run")} == set(ids)


def test_ends_other_than_a_value_are_told(client: gmpd.Client, jobs: Any) -> None:
    with jobs.tracer.start_as_current_span("program"):
        odd = client.submit(jobs.fails_oddly)
        late = client.options(timeout=0.05).submit(jobs.sleeps, 0.2)
        waits = client.submit(jobs.waits)
    assert type(odd.exception(60)).__name__ == "Odd"
    assert isinstance(late.exception(60), JobTimeout)
    wait_until(waits.running, "it runs", timeout=60)
    waits.cancel()
    with pytest.raises(CancelledError):
        waits.result(60)
    trace = Trace(client, jobs, root_of(jobs)["trace"], 3)
    found = {
        row["attributes"]["gmpd.outcome"]: (row["status"], row["attributes"]["gmpd.job.id"])
        for row in trace.of("run")
    }
    assert found == {
        "error": ("ERROR", odd.job_id),
        "timeout": ("ERROR", late.job_id),
        "cancelled": ("UNSET", waits.job_id),
    }


def test_baggage_travels_within_its_bound(client: gmpd.Client, jobs: Any) -> None:
    from opentelemetry import baggage, context

    for value, arrives in (("blue", {"shade": "blue"}), ("x" * 9000, {})):
        token = context.attach(baggage.set_baggage("shade", value))
        try:
            with jobs.tracer.start_as_current_span("program"):
                assert client.submit(jobs.carried).result(60) == arrives
        finally:
            context.detach(token)


def test_an_isolated_job_has_spans_and_they_are_sent_before_its_worker_ends(
    jobs: Any, short_tmp: Path
) -> None:
    exported = short_tmp / "spans"
    exported.touch()
    with private_client(App(), 1, [MODULE]) as client:
        with jobs.tracer.start_as_current_span("program") as span:
            future = client.options(isolate=True).submit(jobs.batched, str(exported))
        around = future.result(60)
        names = wait_until(lambda: exported.read_text().splitlines(), "its spans", timeout=60)
    assert around not in ("0" * 16, f"{span.get_span_context().span_id:016x}")
    assert names == ["inner", f"run {MODULE}:batched"]


def test_a_failing_exporter_fails_no_job(jobs: Any) -> None:
    with private_client(App(), 1, [MODULE]) as client:
        client.submit(jobs.breaks).result(60)
        assert client.submit(jobs.current).result(60)


def test_without_a_span_or_with_the_switch_nothing_travels(client: gmpd.Client, jobs: Any) -> None:
    with disabled(), jobs.tracer.start_as_current_span("program"):
        assert client.submit(jobs.current).result(60) == "0" * 16
    assert [row["name"] for row in jobs.finished()] == ["program"]


WITHOUT = """
import sys
import gmpd
with gmpd.Executor(1) as pool:
    def loaded():
        import sys
        return [name for name in sys.modules if name.startswith("opentelemetry")]
    assert pool.submit(loaded).result() == []
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def test_a_program_without_opentelemetry_imports_none_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(WITHOUT)
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
