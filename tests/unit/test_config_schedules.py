"""The tables ``[cron.NAME]`` of configuration files: read, checked, written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gmpd.config import Config, render
from gmpd.errors import ConfigError
from gmpd.periodic import CatchUp, Overlap

TABLES = """
[cron.report]
function = "shop.jobs:report"
cron = "30 6 * * 1-5"
tz = "Europe/Berlin"
args = ["daily", 2]
kwargs = { deep = [1, { x = true }] }
catch_up = "all"
tick_as = "when"
retries = 3
timeout = "10m"
keep = "7d"

[cron."every minute"]
function = "shop.jobs:tidy"
every = "1m"
overlap = "queue"
unique = "tidy"
"""


def load(tmp_path: Path, *texts: str) -> Config:
    files = []
    for n, text in enumerate(texts):
        path = tmp_path / f"{n}.toml"
        path.write_text(text)
        path.chmod(0o600)
        files.append(path)
    return Config.load(env={}, files=files)


def test_tables_are_schedules_with_options(tmp_path: Path) -> None:
    config = load(tmp_path, TABLES)
    report, tidy = config.cron["report"], config.cron["every minute"]
    assert report.function == "shop.jobs:report"
    assert report.schedule.when == "30 6 * * 1-5 Europe/Berlin"
    assert report.schedule.args == ("daily", 2)
    assert report.schedule.kwargs == {"deep": [1, {"x": True}]}
    assert (report.schedule.catch_up, report.schedule.tick_as) == (CatchUp.ALL, "when")
    assert (report.options.retries, report.options.timeout) == (3, 600)
    assert report.options.keep == 7 * 86400
    assert report.where == f"{tmp_path}/0.toml:2"
    assert (tidy.schedule.every_ms, tidy.schedule.overlap) == (60_000, Overlap.QUEUE)
    assert tidy.options.unique == "tidy"
    assert Config().cron == {}


def test_the_strongest_file_that_has_a_name_counts(tmp_path: Path) -> None:
    other = (
        '[cron.report]\nfunction = "a:b"\nevery = "1s"\n[cron.more]\nfunction = "a:b"\nevery="2s"'
    )
    config = load(tmp_path, TABLES, other)
    assert config.cron["report"].function == "shop.jobs:report"
    assert set(config.cron) == {"report", "every minute", "more"}
    changed = config.override({"limits.max_gs": 7})
    assert changed.cron == config.cron


def test_a_file_of_all_settings_has_them(tmp_path: Path) -> None:
    config = load(tmp_path, TABLES)
    again = load(tmp_path, render(config))
    assert {n: each.given for n, each in again.cron.items()} == {
        n: each.given for n, each in config.cron.items()
    }
    assert "# [cron.report]" in render()
    example = render().partition("# [cron.report]")[2]
    table = "[cron.report]" + "\n".join(line.removeprefix("# ") for line in example.splitlines())
    assert tomllib.loads(table)["cron"]["report"]["overlap"] == "skip"
    assert load(tmp_path, table).cron["report"].options.timeout == 600


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('function = "m.f"\nevery = "1s"', "function = 'm.f': write it as 'module:function'"),
        ('every = "1s"', "function = None"),
        ('function = "m:f"', "it needs one of cron and every"),
        ('function = "m:f"\nevery = "1s"\ncron = "* * * * *"', "it needs one of cron and every"),
        ('function = "m:f"\ncron = "0 0 31 2 *"', "it never fires"),
        ('function = "m:f"\ncron = ""', "must be an expression"),
        ('function = "m:f"\ncron = 5', "must be an expression"),
        ('function = "m:f"\ncron = "* * * * *"\ntz = "Mars"', "tz='Mars'"),
        ('function = "m:f"\nevery = "1s"\ntz = "UTC"', "tz is of cron"),
        ('function = "m:f"\nevery = 30', 'every = 30 has no unit; write "30s"'),
        ('function = "m:f"\nevery = "0s"', "every=0.0: must be from 0.1 s"),
        ('function = "m:f"\nevery = "-1s"', "'-1s' is not a duration"),
        ('function = "m:f"\nevery = "1s"\nretires = 3', "did you mean 'retries'?"),
        ('function = "m:f"\nevery = "1s"\nretries = -3', "retries=-3: must be from 0"),
        ('function = "m:f"\nevery = "1s"\ntimeout = 5', "timeout = 5 has no unit"),
        ('function = "m:f"\nevery = "1s"\ndelay = "1s"', "unknown key 'delay'"),
        ('function = "m:f"\nevery = "1s"\nargs = 1', "args=1: must be a list"),
        ('function = "m:f"\nevery = "1s"\ncatch_up = "some"', "catch_up='some'"),
    ],
    ids=range(18),
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"[cron.x]\n{table}\n")
    assert str(caught.value).startswith(f"cron.x (file {tmp_path}/0.toml:1): ")
    assert says in str(caught.value)


def test_a_key_outside_of_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'every' is no table; a schedule is a table"):
        load(tmp_path, '[cron]\nevery = "1s"\n')
