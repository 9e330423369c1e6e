"""What a default run opens to other machines: nothing."""

import ipaddress
import re
import struct
from pathlib import Path

import pytest

from tests.security.searched import processes

_LISTEN = "0A"


def listening(pids):
    """Addresses and ports at which processes listen, from the kernel's own tables."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
            except OSError:
                continue
            if found:
                sockets.add(found[1])
    where = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == _LISTEN and columns[9] in sockets:
                address, port = columns[1].split(":")
                where.add((_address(address), int(port, 16)))
    return where


def _address(text):
    """Words of 32 bits, each in the machine's own order."""
    words = bytes.fromhex(text)
    address = ipaddress.ip_address(b"".join(struct.pack(">I", word) for (word,) in struct.iter_unpack("=I", words)))
    return getattr(address, "ipv4_mapped", None) or address  # a socket for both kinds writes IPv4 so


def test_addresses_are_read_as_the_kernel_writes_them():
    assert _address("0100007F") == ipaddress.ip_address("127.0.0.1")
    assert _address("00000000") == ipaddress.ip_address("0.0.0.0")
    assert _address("00000000000000000000000001000000") == ipaddress.ip_address("::1")
    assert _address("0000000000000000FFFF00000100007F") == ipaddress.ip_address("127.0.0.1")


@pytest.mark.asyncio(loop_scope="session")
async def test_a_scan_of_a_default_run_finds_nothing_but_loopback(searched):
    ports = searched.stack.ports
    found = listening(processes(searched.stack))
    serving = {ports.gateway, ports.embedder, *ports.indexers}
    assert {port for _, port in found} == serving | set(ports.metrics.values()) | {ports.http}
    assert [str(address) for address, _ in found if not address.is_loopback] == []
