"""In a process whose VITRINE_TEST_WEIGHT names a file: says there every second how many bytes are in use.

Resident memory says less: glibc keeps what is freed, up to 32 MiB for each arena (services/embedder/memory.py).
"""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

_BLOCK_BYTES = 64  # about what one of Python's small objects takes


_NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _NAMES]


def _weigh(path: Path) -> None:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    while True:
        info = mallinfo2()
        path.write_text(f"{info.uordblks + info.hblkhd + _BLOCK_BYTES * sys.getallocatedblocks()}\n")
        time.sleep(1)


if "VITRINE_TEST_WEIGHT" in os.environ and "services.embedder" in sys.orig_argv:
    threading.Thread(target=_weigh, args=(Path(os.environ["VITRINE_TEST_WEIGHT"]),), daemon=True).start()
