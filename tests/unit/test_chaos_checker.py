"""The checker of chaos runs finds every fault that is planted in a ledger; a good one has none."""

from __future__ import annotations

import pytest

from loadtests.chaos_checker import FAULTS, RETRIES, Columns, Ledger, check, expected

#: A worker of coordinator 9, and one that follows it.
WORKERS = ("worker a 10 9 1", "worker b 11 9 1")
CLIENT = ("client 20 1", "bye 20 1000")


def job(kind: str = "quick", key: str = "k") -> tuple[str, ...]:
    """It was submitted, and acknowledged."""
    return f"invoke {key} {kind} 2", f"ok {key} id 3"


def ran(
    inc: str = "a", start: int = 10, end: int | None = 20, outcome: str = "ok", key: str = "k"
) -> tuple[str, ...]:
    """An attempt, perhaps without an end."""
    begun = f"start {key} {inc} {start}"
    return (begun,) if end is None else (begun, f"end {key} {inc} {end} {outcome}")


def final(state: str = "done", key: str = "k", ns: int = 900) -> tuple[str, ...]:
    """The end of a job as the daemon tells it when all is quiet."""
    return (f"final {key} {state} {expected(key) if state == 'done' else '-'} {ns}",)


def checked(*parts: tuple[str, ...]) -> Columns:
    return check(Ledger([*WORKERS, *CLIENT, *(line for part in parts for line in part)]))


def found(*parts: tuple[str, ...]) -> set[str]:
    """The columns that are not empty."""
    return {column for column, texts in checked(*parts).found.items() if texts}


KILL_A, KILL_9 = ("kill worker 10 15",), ("kill coordinator 9 15",)

GOOD: dict[str, tuple[tuple[str, ...], ...]] = {
    "it ran": (job(), ran(), final()),
    "its result was not asked for": (job(), ran(), ("final k done ? 900",)),
    "its end came late, as it ran late": (job(), ("late k 15",), ran(start=30, end=40), final()),
    "refused": (("invoke k quick 2", "refused k 3"),),
    "its fate is unknown, and it ran": (("invoke k quick 2", "unknown k 3"), ran()),
    "its worker was killed": (job(), ran(end=None), KILL_A, ran("b", 30, 40), final()),
    "its coordinator was killed": (job(), ran(end=None), KILL_9, ran("b", 30, 40), final()),
    "killed after its end": (job(), ran(end=14), KILL_A, ran("b", 30, 40), final()),
    "it ended its worker": (
        job("exits"), ran(end=None), ("exits k a 12",), ran("b", 30, 40), final(),
    ),
    "it raised and was tried again": (
        job("flaky"), ran(outcome="error"), ran("a", 30, 40), final(),
    ),
    "it raised too often": (
        job("flaky"),
        *(ran("a", 10 * n, 10 * n + 5, "error") for n in range(1, RETRIES + 2)),
        final("failed"),
    ),
    "cancelled": (job("cancelled"), ("cancel k 5",), final("cancelled")),
    "once, and killed": (job("once"), ran(end=None), KILL_A, final("unknown")),
    "poison": (
        job(), ran(end=None), ("kill worker 10 15",), ran("b", 20, None), ("kill worker 11 25",),
        ("worker c 12 9 26",), ran("c", 30, None), ("kill worker 12 35",), final("quarantined"),
    ),
    "poison before the first line of its function": (
        job(), ("kill worker 10 15", "kill worker 11 25", "worker c 12 9 26", "kill worker 12 35",
                "struck k 10,11,12 890"), final("quarantined"),
    ),
    "it began between the note and the death": (
        job(), KILL_A, ran(end=None, start=18), ("dead 10 19",), ran("b", 30, 40), final(),
    ),
    "a client was killed": (("client 21 1", "kill client 21 50"),),
    "two at once are two jobs": (
        job(), ran(end=30), final(),
        job(key="l"), ran("b", 15, 40, key="l"), final(key="l"),
    ),
}  # fmt: skip

#: A fault of each kind, and the columns that tell it.
PLANTED: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "it never ended": ("lost", (job(), final("queued"))),
    "the daemon knows it no more": ("lost", (job(), ran(), final("forgotten"))),
    "no client was told its end": ("lost", (job(), ran())),
    "twice without a death": ("duplicated", (job(), ran(), ran("b", 30, 40), final())),
    "twice after a death that was earlier": (
        "duplicated", (job(), ("kill worker 10 5", "dead 10 6"), ran(), ran("b", 30, 40), final()),
    ),
    "twice after a death that was later": (
        "duplicated", (job(), ran(), ran("b", 30, 40), ("kill worker 10 50",), final()),
    ),
    "once, and again after a kill": (
        "duplicated", (job("once"), ran(end=None), KILL_A, ran("b", 30, 40), final()),
    ),
    "volatile, and again after a kill": (
        "duplicated", (job("volatile"), ran(end=None), KILL_A, ran("b", 30, 40)),
    ),
    "a second attempt beside the first": (
        "overlapped", (job(), ran(end=50), KILL_A, ran("b", 30, 60), final()),
    ),
    "a second attempt while the first process writes": (
        "overlapped",
        (job(), ran(end=None), KILL_A, ran("b", 30, 60), final(),
         job(key="l"), ran("a", 35, 45, key="l"), final(key="l")),
    ),
    "a third attempt beside the first": (
        "overlapped",
        (job(), ran(end=90), KILL_9, ran("b", 30, 40), ("kill worker 11 50",),
         ("worker c 12 9 60",), ran("c", 70, 80), final()),
    ),
    "begun after a client was told": (
        "zombie",
        (job(), ran(), KILL_A, ("told k done " + expected("k") + " 25",), ran("b", 30, 40),
         final()),
    ),
    "begun after it was over": ("zombie", (job(), ran("a", 950, 960), final())),
    "the result of another": ("wrong", (job(), ran(), (f"final k done {expected('l')} 900",))),
    "done, and nothing of it returned": (
        "wrong", (job(), ran(outcome="error"), final()),
    ),
    "done by what it says, and nothing of it returned": (
        "wrong", (job(), ran(outcome="error"), ("final k done ? 900",)),
    ),
    "another end than was told": (
        "wrong", (job("cancelled"), ("cancel k 5",), ran(), final(), ("told k cancelled - 950",)),
    ),
    "stored twice": ("wrong", (job(), ran(), final(), final())),
    "cancelled by no client": ("wrong", (job(), final("cancelled"))),
    "failed before its retries": (
        "wrong", (job("flaky"), ran(outcome="error"), final("failed")),
    ),
    "poison without deaths": ("wrong", (job(), ran(), final("quarantined"))),
    "poison by workers that lived": (
        "wrong", (job(), KILL_A, ("struck k 10,11,12 890",), final("quarantined")),
    ),
    "unknown although it may run again": (
        "wrong", (job(), ran(end=None), KILL_A, final("unknown")),
    ),
    "a volatile one lost without a death": (
        "wrong", (("invoke k volatile 2",), ran(), ("told k lost - 30",)),
    ),
    "expired without a limit": ("wrong", (job(), final("expired"))),
    "a job of no client": ("unexpected", (ran(),)),
    "a call that did not return": ("hung", (("invoke k quick 2", "hung k 900"),)),
    "an end that its client was not told": ("hung", (job(), ran(), ("late k 500",), final())),
    "a client that did not end": ("hung", (("client 22 1",),)),
    "a process that is left": ("leaked", (("leaked process 30 python -m gmpd",),)),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_ledger_is_clean(name: str) -> None:
    columns = checked(*GOOD[name])
    assert columns.is_clean, columns.found


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str) -> None:
    column, parts = PLANTED[name]
    assert column in found(*parts)


def test_every_column_has_a_planted_fault() -> None:
    assert {column for column, _ in PLANTED.values()} == set(FAULTS)


def test_the_counts() -> None:
    columns = checked(
        job(), ran(), final(),
        ("invoke l quick 2", "unknown l 3"), ran(key="l"),
        ("invoke m quick 2", "refused m 3"),
    )  # fmt: skip
    assert columns.counts["attempted"] == 3
    assert columns.counts["acknowledged"] == 1
    assert columns.counts["refused"] == 1
    assert (columns.counts["unknown"], columns.counts["recovered"]) == (1, 1)
    assert (columns.counts["finished"], columns.counts["starts"]) == (1, 2)


def test_attempts_and_workers_that_a_death_cut_off_are_counted() -> None:
    two = (*ran(end=None), *ran(end=None, key="l"))
    columns = checked(job(), job(key="l"), two, KILL_A, ran("b", 30, 40))
    assert (columns.counts["cut"], columns.counts["workers cut"]) == (2, 1)


@pytest.mark.parametrize(
    "line",
    ["", "stop k a 10", "start k a", "start k a x", "start k none 10", "end k a 20 ok"],
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Ledger([*WORKERS, line])
