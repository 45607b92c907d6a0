"""Periodic jobs of the tests. They append to files, so that what ran can be counted."""

from __future__ import annotations

import os
from pathlib import Path

import gmpd

PLACE = Path(os.environ.get("CRON_RECORD", "/nonexistent"))


@gmpd.every(1, tick_as="when", catch_up="all", name="seconds")
@gmpd.job(retries=100)
def note(when: str) -> str:
    """Append the time of the tick."""
    with (PLACE / "seconds").open("a") as file:
        file.write(when + "\n")
    return when


@gmpd.cron("0 0 1 1 *", tz="Europe/Berlin", kwargs={"word": "year"})
async def yearly(word: str) -> str:
    """It runs when it is asked to."""
    return word
