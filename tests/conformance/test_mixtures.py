"""Everything that a program may do, at once: nothing hangs, and every result is what it must be."""

from __future__ import annotations

from collections import Counter

from tests.conformance.mixtures import FLAT, NESTED, Mixture

#: More with ``python tests/conformance/mixtures.py FIRST LAST``.
SEEDS = 10


def test_random_mixtures_come_out_right() -> None:
    done: Counter[str] = Counter()
    for seed in range(SEEDS):
        try:
            done += Mixture(seed).run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert set(done) == {*FLAT, *NESTED}
