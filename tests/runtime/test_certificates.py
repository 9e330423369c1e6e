"""When a certificate ends, against an independent reader."""

from datetime import UTC, datetime

import pytest
import trustme
from cryptography import x509

from services.runtime.certificates import expires_at

# Both ways of writing a date: two digits of the year to 2049, four from 2050 on.
ENDS = [
    datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2050, 1, 1, tzinfo=UTC),
    datetime(2027, 6, 5, 4, 3, 2, tzinfo=UTC),
]


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_the_first_certificate_is_read(end):
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost", not_after=end).cert_chain_pems[0].bytes()
    assert expires_at(leaf + ca.cert_pem.bytes()) == end
    assert expires_at(b"some text before\n" + leaf) == x509.load_pem_x509_certificate(leaf).not_valid_after_utc


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00"])
def test_a_file_without_one(content):
    with pytest.raises(ValueError, match="no certificate in it"):
        expires_at(content)


def test_what_is_none_inside():
    for inside in ("", "AAAA", "MAA=", "MIIB", "!!!!"):
        with pytest.raises(ValueError, match="not a certificate"):
            expires_at(f"-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n".encode())
