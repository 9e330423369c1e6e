"""`python -m services.local.child PARENT_PID MODULE` runs a module that ends when its parent does.

A supervisor that is killed must not leave servers behind. The child asks for that itself: code run between fork and
exec in a process with gRPC threads can deadlock. Linux only; elsewhere it just runs the module.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Command line entry."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
