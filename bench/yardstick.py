"""What speeds are put in relation to: programs of the same minute on the same host, in CPU seconds."""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable

NATIVE_BYTES = bytes(range(256)) * (1 << 16)


def cpu_time(action: Callable[[], object], repeat: int = 3) -> float:
    """CPU seconds of this thread that an action takes: the median of some times."""
    times = []
    for _ in range(repeat):
        started = time.thread_time()
        action()
        times.append(time.thread_time() - started)
    return statistics.median(times)


def native_seconds() -> float:
    """A fixed native loop: zlib's CRC-32 over 16 MiB."""
    return cpu_time(lambda: zlib.crc32(NATIVE_BYTES))
