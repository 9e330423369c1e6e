"""Set-up for the embedder's tests."""

import pytest

from services.local import supervisor


@pytest.fixture(autouse=True)
def _start_processes_without_fork(monkeypatch):
    """Starts processes with vfork, which Python uses where nothing is to run before exec.

    These tests have gRPC servers in their own process meanwhile, and gRPC's fork handlers then sometimes abort the
    forked child (seen in 1 to 2 of 30 starts with grpcio 1.85).
    """
    monkeypatch.setattr(supervisor, "_die_with_parent", None)
