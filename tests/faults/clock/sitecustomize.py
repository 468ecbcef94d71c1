"""A wall clock that jumps, for every Python process that has this directory on its path.

``HEADWATER_TEST_CLOCK`` names a file with the seconds by which ``time.time`` and ``time.time_ns`` are off. The
monotonic clock, file times and the broker's clock stay true. (libfaketime 0.9.10 cannot stand in: under it
``time.sleep`` of Python 3.11 ends with EINVAL.)
"""

import os
import time

_FILE = os.environ.get("HEADWATER_TEST_CLOCK", "")
_time, _time_ns = time.time, time.time_ns


def _offset_s() -> int:
    try:
        with open(_FILE, encoding="ascii") as file:
            return int(file.read() or 0)
    except (OSError, ValueError):
        return 0


if _FILE:
    time.time = lambda: _time() + _offset_s()
    time.time_ns = lambda: _time_ns() + _offset_s() * 1_000_000_000
