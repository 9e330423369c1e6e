"""Who may call: the tokens and certificates that a service knows, and what each of them may do."""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.runtime.settings import SettingsError
from vitrine.callers import is_caller

MAX_ENTRIES = 1_000
"""Of each kind, in one file: every call with a token is compared with all of them."""


class Scope(StrEnum):
    """What an identity may do. None includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    METRICS = "metrics"


@dataclass(frozen=True)
class Identity:
    """A caller that is known."""

    name: str
    scopes: frozenset[Scope]
    collections: tuple[str, ...] = ()
    """Names, or beginnings of names that end in `*`; empty: every collection."""
    expires: datetime | None = None
    speaks_for_others: bool = False
    """It is a service that says in `x-vitrine-client` for whom it calls."""

    def may_use(self, collection: str) -> bool:
        """Tells whether a collection, by the name the caller used, is one of its own."""
        return not self.collections or any(_matches(pattern, collection) for pattern in self.collections)

    def caller(self, named: str) -> str:
        """Returns for whom it calls: itself, unless it speaks for others and has `named` one."""
        return named if self.speaks_for_others and named else self.name

    def is_expired(self, now: datetime) -> bool:
        """Tells whether it counts no more."""
        return self.expires is not None and self.expires <= now


@dataclass(frozen=True)
class Directory:
    """Everyone who is known."""

    tokens: Sequence[tuple[bytes, Identity]] = ()
    """Identities by the sha256 of their token."""
    certificates: Sequence[tuple[str, Identity]] = ()
    """Identities by a name in their certificate."""

    def by_token(self, token: str) -> Identity | None:
        """Returns whose token this is; takes as long for any token, known or not."""
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, identity in self.tokens:
            if hmac.compare_digest(known, digest):
                found = identity
        return found

    def by_certificate(self, names: Iterable[str]) -> Identity | None:
        """Returns who carries a certificate with one of these names; where several fit, the first in the file."""
        carried = set(names)
        return next((each for pattern, each in self.certificates if any(_matches(pattern, n) for n in carried)), None)


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _check_name(name: str) -> str:
    if not is_caller(name):
        raise ValueError("must be 1 to 64 letters, digits and . _ : @ / -, the first a letter or digit")
    return name


def _check_pattern(pattern: str) -> str:
    if not pattern or "*" in pattern[:-1]:
        raise ValueError("must be a name, or the beginning of names with * at its end")
    return pattern


def _check_digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("must be the sha256 of the token, 64 hexadecimal digits; never the token itself")
    return text


_Pattern = Annotated[str, AfterValidator(_check_pattern)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_check_name)]
    scopes: list[Scope] = Field(min_length=1)
    collections: list[_Pattern] | None = Field(None, min_length=1)
    expires: AwareDatetime | None = None
    speaks_for_others: bool = False

    def identity(self) -> Identity:
        return Identity(
            self.name,
            frozenset(self.scopes),
            tuple(self.collections or ()),
            self.expires and self.expires.astimezone(UTC),
            self.speaks_for_others,
        )


class _Token(_Entry):
    sha256: Annotated[str, AfterValidator(_check_digest)]


class _Certificate(_Entry):
    subject: _Pattern


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: list[_Token] = Field([], max_length=MAX_ENTRIES)
    certificate: list[_Certificate] = Field([], max_length=MAX_ENTRIES)


def load_directory(path: Path) -> Directory:
    """Reads the file of identities.

    Raises:
        SettingsError: It cannot be read, or something in it is wrong; the message repeats no value of it.
    """
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"auth_file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"auth_file {path}: not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"auth_file {path}: {error}") from None
    try:
        file = _File.model_validate(document)
    except ValidationError as error:
        wrong = [f"  {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)]
        raise SettingsError(f"auth_file {path}:\n" + "\n".join(wrong)) from None
    if not file.token and not file.certificate:
        raise SettingsError(f"auth_file {path}: names nobody; add a [[token]] or a [[certificate]]")
    digests = [each.sha256 for each in file.token]
    for index, digest in enumerate(digests):
        if digest in digests[:index]:
            raise SettingsError(f"auth_file {path}: token {index} has the sha256 of another")
    return Directory(
        tokens=tuple((bytes.fromhex(each.sha256), each.identity()) for each in file.token),
        certificates=tuple((each.subject, each.identity()) for each in file.certificate),
    )
