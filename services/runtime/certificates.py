"""Reads the one thing of a certificate that a service must know of its own: when it ends."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_CONTEXT_0 = 0xA0
_UTC_TIME = 0x17


def expires_at(pem: bytes) -> datetime:
    """Returns when the first certificate of a PEM file ends.

    Source of the layout: RFC 5280, section 4.1. Python's ssl module tells this only of the other side's certificate.

    Raises:
        ValueError: There is no certificate in it.
    """
    found = _PEM.search(pem.decode("ascii", "replace"))
    if found is None:
        raise ValueError("no certificate in it")
    try:
        _, certificate, _ = _element(ssl.PEM_cert_to_DER_cert(found.group()))
        _, fields, _ = _element(certificate)
        if fields[0] == _CONTEXT_0:  # the version, left out of version 1
            fields = _element(fields)[2]
        for _ in range(3):  # serial number, signature algorithm, issuer
            fields = _element(fields)[2]
        _, validity, _ = _element(fields)
        kind, until, _ = _element(_element(validity)[2])
        text = until.decode("ascii")
        if kind == _UTC_TIME:  # two digits of the year: 1950 to 2049
            text = f"{'20' if text[:2] < '50' else '19'}{text}"
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except (IndexError, ValueError) as error:
        raise ValueError(f"not a certificate: {error}") from None


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Takes one element apart: its tag, its content, and what comes after it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return der[0], der[start : start + length], der[start + length :]
