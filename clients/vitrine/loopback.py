"""Which addresses never leave this machine."""

from __future__ import annotations

import ipaddress


def is_loopback_host(host: str) -> bool:
    """Tells whether a host name or IP address (in brackets or not) is this machine's own, and stays on it."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def is_loopback(target: str) -> bool:
    """Tells whether a gRPC target stays on this machine: `host:port`, also behind a scheme, or a Unix socket."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("ipv4:").removeprefix("ipv6:")
    if address.startswith("dns:"):
        address = address.removeprefix("dns:").rpartition("/")[2]
    # Several addresses behind one scheme: all of them must stay.
    return all(is_loopback_host(_without_port(each)) for each in address.split(","))


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address.partition("]")[0] + "]"
    host, colon, _ = address.rpartition(":")
    return host if colon and ":" not in host else address
