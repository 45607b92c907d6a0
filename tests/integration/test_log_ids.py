"""Log records made in jobs name job, attempt, G, P and function: in a daemon with two Ps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gmpd
from gmpd.cli.app import App
from gmpd.cli.private import private_client
from tests import jobs_logging as jobs
from tests.durable_daemon import Daemon, serving
from tests.jobs_logging import Said
from tests.support import wait_until


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with serving(procs=2) as daemon:
        yield daemon


@pytest.fixture
def client(served: Daemon) -> gmpd.Client:
    return served.clients[0]


@pytest.mark.parametrize(
    "fn",
    [jobs.plain, jobs.coroutine, jobs.in_thread, jobs.blocking, jobs.task],
    ids=lambda fn: fn.__name__,
)
def test_a_record_of_a_job_names_it(client: gmpd.Client, fn: Callable[..., Any]) -> None:
    future = client.submit(fn)
    said = future.result(60)
    assert (said.job, said.attempt) == (future.job_id, "1")
    assert said.p in ("0", "1")
    assert said.g.isdecimal()
    name = "coroutine" if fn is jobs.task else f"tests.jobs_logging:{fn.__name__}"
    assert said.function == name


@pytest.mark.parametrize(
    "fn", [jobs.child, jobs.child_of_plain, jobs.copied], ids=lambda fn: fn.__name__
)
def test_a_record_of_a_child_names_the_job_and_the_child(
    client: gmpd.Client, fn: Callable[..., Any]
) -> None:
    future = client.submit(fn)
    said = future.result(60)
    assert (said.job, said.attempt) == (future.job_id, "1")
    names = {"child": "coroutine", "child_of_plain": "plain"}
    assert said.function == names.get(fn.__name__, "tests.jobs_logging:copied")


def test_children_in_another_worker_name_the_job_that_they_belong_to(client: gmpd.Client) -> None:
    def migrated() -> bool:
        future = client.submit(jobs.wide, 60)
        said = future.result(60)
        assert {each.job for each in said} == {future.job_id}
        assert {each.attempt for each in said} == {"1"}
        return {each.p for each in said} == {"0", "1"}

    wait_until(migrated, "some go to the other worker", timeout=60)


def test_jobs_of_one_message_have_their_own_ids(client: gmpd.Client) -> None:
    futures = [client.submit(jobs.plain) for _ in range(300)]
    assert [each.result(60).job for each in futures] == [each.job_id for each in futures]


def test_another_attempt_has_the_next_number(client: gmpd.Client) -> None:
    future = client.options(retries=1).submit(jobs.fails_once, [])
    said = future.result(60)
    assert (said.job, said.attempt) == (future.job_id, "2")


def test_a_durable_job_has_its_id_and_attempt(client: gmpd.Client) -> None:
    id_ = client.options(retries=2, backoff=0.01).enqueue(jobs.fails_once, [])
    said = client.job(id_).result(60)
    assert (said.job, said.attempt) == (id_, "2")


def test_an_isolated_job_says_so() -> None:
    with private_client(App(), 1, ["tests.jobs_logging"]) as client:
        future = client.options(isolate=True).submit(jobs.plain)
        said = future.result(60)
        assert (said.job, said.p) == (future.job_id, "isolated")


@pytest.mark.parametrize("fn", [jobs.stream, jobs.astream], ids=lambda fn: fn.__name__)
def test_a_generator_has_the_id_of_its_job(client: gmpd.Client, fn: Callable[..., Any]) -> None:
    (said,) = client.stream(fn)
    assert len(said.job) == 32
    assert said.function == f"tests.jobs_logging:{fn.__name__}"


def test_a_thread_without_the_context_of_a_job_has_empty_ids(client: gmpd.Client) -> None:
    said = client.submit(jobs.own_thread).result(60)
    assert (said.job, said.attempt, said.g, said.function) == ("", "", "", "")
    assert said.p in ("0", "1"), "it is in a worker all the same"


def test_a_function_whose_name_cannot_be_read_loses_no_line(client: gmpd.Client) -> None:
    future = client.submit(jobs.odd_child)
    said = future.result(60)
    assert (said.job, said.function) == (future.job_id, "")


def test_the_filter_serves_where_a_program_has_replaced_the_factory(client: gmpd.Client) -> None:
    future = client.submit(jobs.replaced_factory)
    has, said = future.result(60)
    assert not has
    assert said.job == future.job_id


def test_the_filter_names_the_gs_of_a_program_without_a_daemon(
    request: pytest.FixtureRequest,
) -> None:
    logger = logging.getLogger("tests.test_log_ids")
    kept = jobs._Kept()
    kept.addFilter(gmpd.LogFilter())
    logger.addHandler(kept)
    request.addfinalizer(lambda: logger.removeHandler(kept))

    def child() -> None:
        logger.warning("child")

    async def main() -> None:
        logger.warning("main")
        await gmpd.go(child)

    logger.warning("outside")
    gmpd.run(main())
    assert kept.said["outside"] == Said("", "", "", "", "")
    assert kept.said["main"][:2] == kept.said["child"][:2] == ("", "")
    assert kept.said["main"].p == "0"
    assert kept.said["main"].function.endswith("main")
    assert kept.said["child"].function.endswith("child")
    assert kept.said["main"].g != kept.said["child"].g
