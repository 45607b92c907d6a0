"""The conclusion of `gmpd demo --cpu-bound` is what the numbers say, whatever is expected."""

from __future__ import annotations

from dataclasses import replace

import click

from gmpd.cli.teach.cpu_bound import Case, Run, case_of, conclusion, tell

PROCS = 2
ONE = Case(1, 2, 2, 1.90, 0.97, 1.96, 20_000.0, 500.0, 600.0, 60_000_000)
TEN = replace(ONE, times=10, gs=20, alive=20)
MANY = replace(ONE, times=1000, gs=2000, alive=2000, rss_bytes=63_500_000)


def says(one: Case = ONE, ten: Case = TEN, many: Case = MANY) -> str:
    return conclusion([one, ten, many], PROCS)


def test_the_same_throughput_is_called_no_more() -> None:
    assert "2,000 Gs computed no more per second than 2" in says()
    assert "changed memory by +3.5 MB" in says()


def test_less_throughput_is_given_in_percent() -> None:
    assert "2,000 Gs computed 10% less per second" in says(many=replace(MANY, work_per_s=1.71))


def test_more_throughput_is_not_explained_away() -> None:
    said = says(ten=replace(TEN, work_per_s=2.47))
    assert "20 Gs computed 30% more per second than 2" in said
    assert "measure again" in said


def test_a_machine_that_others_used_is_judged_by_cpu_time() -> None:
    """Throughput fell to a half, since the workers had half of the cores: it says nothing."""
    disturbed = replace(MANY, work_per_s=0.95, cores=0.98)
    said = says(many=disturbed)
    assert "no more per second of CPU time (other programs used much of the cores)" in said
    assert "20% less per second of CPU" in says(many=replace(disturbed, work_per_cpu_s=0.776))


def test_a_case_is_the_median_of_its_runs() -> None:
    runs = [
        Run(20, 20, seconds, 2.0, 2.0, 1000, 10, 20, rss)
        for seconds, rss in [(1.0, 50), (2.0, 70), (4.0, 60)]
    ]
    case = case_of(10, runs)
    assert (case.times, case.gs, case.alive) == (10, 20, 20)
    assert (case.work_per_s, case.work_per_cpu_s, case.cores) == (1.0, 1.0, 1.0)
    assert (case.g_switches_per_s, case.voluntary_per_s, case.involuntary_per_s) == (500, 5, 10)
    assert case.rss_bytes == 60


def test_the_table_fits_a_terminal() -> None:
    crowded = replace(MANY, alive=128_000, g_switches_per_s=9_876_543, rss_bytes=4_200_000_000)
    told = tell([ONE, TEN, crowded], 128, 0.6, says(many=crowded))
    lines = [click.unstyle(line) for line in told]
    assert [line for line in lines if len(line) > 80] == []
    assert any(line.startswith("1,000 x Ps") and "128,000" in line for line in lines)
