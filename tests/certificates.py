"""Certificates for tests: an authority, and files with what it issues."""

from datetime import UTC, datetime, timedelta

import trustme

LOCAL = ("localhost", "127.0.0.1")


class Authority:
    """A certificate authority that writes what it issues into a folder."""

    def __init__(self, folder):
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / f"ca-{id(self):x}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name="server", identities=LOCAL, *, common_name=None, expires=None):
        """Writes NAME.pem and NAME.key, over what was there; returns both paths."""
        issued = self._ca.issue_cert(
            *identities,
            common_name=common_name,
            not_before=datetime.now(UTC) - timedelta(days=400) if expires else None,
            not_after=expires,
        )
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        # The chain in one step, then the key: as a tool that replaces them one after the other.
        certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key
