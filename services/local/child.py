"""`python -m services.local.child PARENT_PID MODULE` runs a module that ends when its parent does.

A supervisor that is killed must not leave servers behind. Linux only; elsewhere it just runs the module.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from services.runtime.parents import end_with_parent


def main() -> None:
    """Command line entry."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    end_with_parent(signal.SIGTERM)
    if sys.platform == "linux" and os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
