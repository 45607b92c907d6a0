"""The machine that a figure is from, in words that name no host, no user and no path."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from gmpd import compiled


def describe() -> dict[str, Any]:
    """Processor, cores that may be used, memory, kernel, interpreter, variant of gmpd; how busy it
    was before."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release().partition("-")[0],
        "arch": platform.machine(),
        "python": sys.version.split()[0],
        "gmpd": str(compiled.variant()),
        "load_before": os.getloadavg()[0],
    }


def _field(path: str, name: str) -> str:
    try:
        with open(path) as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return "unknown"
