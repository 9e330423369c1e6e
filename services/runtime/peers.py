"""How a service reaches the services behind it, and as whom."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.runtime.settings import ServiceSettings, SettingsError
from vitrine.credentials import Credentials, Tls
from vitrine.errors import InvalidArgumentError


class PeerSettings(ServiceSettings):
    """Settings of a service that calls others."""

    peer_tls: bool = Field(
        False,
        description="Speak TLS with the services this one calls. Also set by any of the peer_ files below but the "
        "token's.",
    )
    peer_ca_file: Path | None = Field(
        None, description="PEM file of the authorities they must be vouched for by; unset: those gRPC comes with."
    )
    peer_cert_file: Path | None = Field(
        None, description="PEM file with the certificate chain to show them (mTLS). Read at start."
    )
    peer_key_file: Path | None = Field(None, description="PEM file with its private key.")
    peer_server_name: str = Field(
        "", description="Name their certificates must carry; empty: the host of the address called."
    )
    peer_token_file: Path | None = Field(
        None,
        description="File with the token to send them; read again when it changes. Never sent over plain text, but to "
        "loopback.",
    )

    def peer_credentials(self) -> Credentials:
        """Returns how to reach the services behind this one.

        Raises:
            SettingsError: A file cannot be read.
        """
        files = (self.peer_ca_file, self.peer_cert_file, self.peer_key_file)
        speak_tls = self.peer_tls or any(each is not None for each in files)
        tls = Tls(*files, server_name=self.peer_server_name) if speak_tls else None
        credentials = Credentials(tls, self.peer_token_file)
        try:
            if tls is not None:
                tls.channel_credentials()
            credentials.bearer()
        except InvalidArgumentError as error:
            raise SettingsError(f"peer_ settings: {error.message}") from None
        return credentials
