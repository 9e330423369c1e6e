"""Python imports this at its start where this folder is on its path: the wall clock then jumps when a test says so.

Only `time.time_ns`, which is all that Vitrine reads of it: a whole machine's clock cannot be set in a test, Linux has
no namespace for it, and libfaketime also bends the locks of gRPC's C core. `time.time` stays, because gRPC's Python
part compares it with what that core says. The monotonic clocks, by which deadlines are kept, do not jump; nor do they
when a real machine's clock is set.
"""

import os
import time
from pathlib import Path

if "CLOCK_OFFSET_FILE" in os.environ:
    _file = Path(os.environ["CLOCK_OFFSET_FILE"])
    _time_ns = time.time_ns

    def time_ns():
        return _time_ns() + int(_file.read_text()) * 10**9

    time.time_ns = time_ns
