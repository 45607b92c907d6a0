"""Jobs of hogs.py: they compute for long, with and without the GIL."""

from __future__ import annotations

import hashlib
import time


def python(seconds: float) -> int:
    """Pure Python, which holds the GIL."""
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        rounds += 1
    return rounds


def hashed(seconds: float) -> int:
    """C code that releases the GIL, for a tenth of a second at a time."""
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 150_000)
        rounds += 1
    return rounds


def numpy(seconds: float) -> int:
    """NumPy: C code that releases the GIL for large arrays, and holds it for small ones."""
    import numpy as np

    rounds, end = 0, time.monotonic() + seconds
    a = np.arange(200_000, dtype=float)
    while time.monotonic() < end:
        a = np.sqrt(a * a + 1.0)
        np.sort(a[::-1].copy())
        rounds += 1
    return rounds


def pandas(seconds: float) -> int:
    """pandas: Python and C code in turn."""
    import pandas as pd

    rounds, end = 0, time.monotonic() + seconds
    frame = pd.DataFrame({"key": [n % 97 for n in range(50_000)], "value": range(50_000)})
    while time.monotonic() < end:
        frame.groupby("key").value.rolling(3).sum()
        rounds += 1
    return rounds


async def short_async(n: int) -> int:
    return n


def short_plain(n: int) -> int:
    return n
