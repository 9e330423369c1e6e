"""Free ports: never the same ones twice, and none that is taken."""

import socket

import pytest

from services.local import ports
from services.local.ports import free_ports


def test_no_port_is_given_twice_before_all_were():
    found = [number for _ in range(50) for number in free_ports(10)]
    assert len(set(found)) == 500
    assert set(found) <= set(ports.PORTS)


def test_a_port_somebody_listens_on_is_passed_over(monkeypatch):
    monkeypatch.setattr(ports, "PORTS", ports.PORTS[:3])
    monkeypatch.setattr(ports, "_walk", lambda: iter(ports.PORTS))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.PORTS[1]))
        assert free_ports(2) == [ports.PORTS[0], ports.PORTS[2]]
        with pytest.raises(OSError, match="cannot find 3 free ports"):
            free_ports(3)
