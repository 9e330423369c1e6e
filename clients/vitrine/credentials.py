"""What a client needs to reach services that ask who is calling: TLS files, and a token."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from vitrine.errors import InvalidArgumentError

AUTHORIZATION = "authorization"
"""The gRPC metadata key, and the HTTP header, that carries a token."""
MIN_TOKEN_CHARACTERS = 16
MAX_TOKEN_CHARACTERS = 512

_TOKEN = re.compile(rf"[A-Za-z0-9._~+/=-]{{{MIN_TOKEN_CHARACTERS},{MAX_TOKEN_CHARACTERS}}}")
_REREAD_SECONDS = 1.0


@dataclass(frozen=True)
class Tls:
    """How to speak TLS: whom to trust, and which certificate to show where the server asks for one."""

    ca_file: Path | str | None = None
    """PEM file of the authorities to trust; None: those that gRPC comes with."""
    cert_file: Path | str | None = None
    """PEM file with our certificate chain, for servers that want one (mTLS)."""
    key_file: Path | str | None = None
    """PEM file with its private key."""
    server_name: str = ""
    """The name that the server's certificate must carry; empty: the host of its address."""

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            InvalidArgumentError: One of them cannot be read, or only one of certificate and key is given.
        """
        if (self.cert_file is None) != (self.key_file is None):
            raise InvalidArgumentError("a client certificate needs both its file and that of its key")
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file, "CA"),
            private_key=_read(self.key_file, "key"),
            certificate_chain=_read(self.cert_file, "certificate"),
        )


@dataclass(frozen=True)
class Credentials:
    """How to reach services, and as whom. The default is plain text and nobody: for loopback."""

    tls: Tls | None = None
    """None: plain text."""
    token: str | Path | None = field(default=None, repr=False)
    """The token itself, or the file that holds it, which is read again whenever it changes; None: no token."""

    def bearer(self) -> Callable[[], str] | None:
        """Returns what gives the metadata value to send with a call; None: there is no token.

        Raises:
            InvalidArgumentError: The token is none, or its file cannot be read.
        """
        if self.token is None:
            return None
        if isinstance(self.token, Path):
            return _TokenFile(self.token)
        value = f"Bearer {check_token(self.token)}"
        return lambda: value


def check_token(token: str) -> str:
    """Returns the token.

    Raises:
        InvalidArgumentError: It is none; the message does not repeat it.
    """
    if not _TOKEN.fullmatch(token):
        raise InvalidArgumentError(
            f"token is not {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} letters, digits and . _ ~ + / = -",
            field="token",
        )
    return token


class _TokenFile:
    """A token in a file that may be replaced at any time, as Kubernetes does with its secrets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._checked = -_REREAD_SECONDS
        self._value = ""
        try:
            self._refresh()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"token file {path}: {error}") from None

    def __call__(self) -> str:
        # A look at one small local file each second is cheaper than a hop to a thread for every call.
        now = time.monotonic()
        if now - self._checked >= _REREAD_SECONDS:
            self._checked = now
            # Half written, or away for a moment: the server says whether the one that was there still counts.
            with contextlib.suppress(OSError, UnicodeDecodeError, InvalidArgumentError):
                self._refresh()
        return self._value

    def _refresh(self) -> None:
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._value = f"Bearer {check_token(self._path.read_text().strip())}"
            self._stamp = stamp


def _read(path: Path | str | None, what: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"TLS {what} file {path}: {error.strerror}") from None
    if b"-----BEGIN" not in content:
        raise InvalidArgumentError(f"TLS {what} file {path}: no PEM block in it")
    return content
