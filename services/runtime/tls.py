"""The certificate of a service: read from files, checked, and taken up again when the files change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from services.runtime import metrics
from services.runtime.certificates import expires_at
from services.runtime.settings import ServiceSettings, SettingsError


@dataclass(frozen=True)
class _Material:
    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


class ServerTls:
    """What a service shows to those who connect, and whom it believes."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Reads the files; with `client_ca` a gRPC caller must show a certificate of that authority.

        Raises:
            SettingsError: One cannot be read, they do not belong together, or the certificate has expired.
        """
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._contexts: list[ssl.SSLContext] = []
        self._current = self._read()
        self._served = self._current

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> ServerTls | None:
        """Returns what the settings name; None: plain text.

        Raises:
            SettingsError: As the constructor, or some of the files are not set.
        """
        certificate, key = settings.tls_cert_file, settings.tls_key_file
        if certificate is None and key is None and settings.tls_client_ca_file is None:
            return None
        if certificate is None or key is None:
            raise SettingsError("TLS needs both tls_cert_file and tls_key_file")
        return cls(certificate, key, settings.tls_client_ca_file)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is made of."""
        return tuple(each for each in (self._certificate, self._key, self._client_ca) if each is not None)

    def reload(self) -> None:
        """Reads the files again; connections made from now on get what is in them.

        Raises:
            SettingsError: As the constructor; what was read before stays in use.
        """
        self._current = self._read()
        for context in self._contexts:
            context.load_cert_chain(self._certificate, self._key)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Returns credentials for a gRPC port, also one of `grpc.aio`, that follow every reload."""
        return grpc.dynamic_ssl_server_credentials(
            self._current.configuration(),
            self._changed,  # type: ignore[arg-type]  # None says "the same", see gRPC's own documentation
            require_client_authentication=self._client_ca is not None,
        )

    def http_context(self) -> ssl.SSLContext:
        """Returns a context for an HTTP port that follows every reload. It asks for no certificate: tokens count."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key)
        context.set_alpn_protocols(["http/1.1"])
        self._contexts.append(context)
        return context

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Tells gRPC, before every handshake and in a thread of its own, what to use from now on; None: the same."""
        current = self._current
        if current is self._served:
            return None
        self._served = current
        return current.configuration()

    def _read(self) -> _Material:
        certificate = _read(self._certificate, "tls_cert_file")
        try:
            expires = expires_at(certificate)
        except ValueError as error:
            raise SettingsError(f"tls_cert_file {self._certificate}: {error}") from None
        if expires <= datetime.now(UTC):
            raise SettingsError(f"tls_cert_file {self._certificate}: expired at {expires:%Y-%m-%d %H:%M}Z")
        key = _read(self._key, "tls_key_file")
        client_ca = None if self._client_ca is None else _read(self._client_ca, "tls_client_ca_file")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An empty password: it must fail rather than ask for one at the terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
        except ssl.SSLError as error:
            told = f"tls_key_file {self._key} is no key of tls_cert_file {self._certificate}: {error.reason}"
            raise SettingsError(told) from None
        if client_ca is not None:
            try:
                context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
            except ssl.SSLError as error:
                raise SettingsError(f"tls_client_ca_file {self._client_ca}: {error.reason}") from None
        # What was checked must be what was read: files are replaced one after the other.
        if (certificate, key) != (self._certificate.read_bytes(), self._key.read_bytes()):
            raise SettingsError("the certificate's files changed while they were read")
        metrics.CERTIFICATE_EXPIRES.set(expires.timestamp())
        return _Material(certificate, key, client_ca)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting} {path}: {error.strerror}") from None
