"""What counts as this machine: a mistake here sends a token in plain text over a network."""

import pytest

from vitrine.loopback import is_loopback, is_loopback_host

HERE = (
    "127.0.0.1:50050",
    "127.8.9.1:1",
    "localhost:50050",
    "LOCALHOST.:1",
    "[::1]:50050",
    "::1",
    "ipv4:127.0.0.1:50050",
    "ipv6:[::1]:50050",
    "ipv4:127.0.0.1:1,127.0.0.2:2",
    "dns:localhost:50050",
    "dns:///localhost:50050",
    "dns://resolver.example/localhost:50050",
    "unix:/run/vitrine.sock",
    "unix-abstract:vitrine",
)
ELSEWHERE = (
    "10.0.0.1:50050",
    "0.0.0.0:50050",
    "[::]:50050",
    "[2001:db8::1]:50050",
    "gateway:50050",
    "localhost.example.com:50050",
    "127.0.0.1.example.com:50050",
    "ipv4:127.0.0.1:1,10.0.0.1:2",
    "dns:///gateway.shop:50050",
    "dns://127.0.0.1/gateway:50050",
    "xds:///127.0.0.1",
    "",
)


@pytest.mark.parametrize("target", HERE)
def test_this_machine(target):
    assert is_loopback(target)


@pytest.mark.parametrize("target", ELSEWHERE)
def test_another_machine(target):
    assert not is_loopback(target)


@pytest.mark.parametrize(("host", "here"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_hosts_to_listen_on(host, here):
    assert is_loopback_host(host) == here
