"""The door of a service: who is calling, and may they do that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import structlog

from services.runtime import metrics
from services.runtime.identities import Directory, Identity, Scope
from services.runtime.permissions import Message, Rule
from vitrine.credentials import MAX_TOKEN_CHARACTERS
from vitrine.errors import PermissionDeniedError, UnauthenticatedError, VitrineError

log = structlog.get_logger()

_LOG_SECONDS = 1.0


class Guard:
    """Knows callers by their token or certificate. Without a directory everyone may do everything."""

    def __init__(self, directory: Directory | None = None) -> None:
        self.directory = directory
        self._logged = -_LOG_SECONDS
        self._unlogged = 0

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self.directory is None

    @property
    def knows_certificates(self) -> bool:
        """Whether the names in a caller's certificate matter."""
        return self.directory is not None and bool(self.directory.certificates)

    def identify(self, authorization: Sequence[str], certificate_names: Iterable[str] = ()) -> Identity | None:
        """Returns who is calling; None where nobody is asked. A token counts before a certificate.

        Args:
            authorization: Every value of the `authorization` metadata key or HTTP header.
            certificate_names: The names in the verified certificate of the caller.

        Raises:
            UnauthenticatedError: They do not say, or what they say is not known, or counts no more.
        """
        directory = self.directory
        if directory is None:
            return None
        if authorization:
            identity = directory.by_token(self._token(authorization))
            what = "token"
        else:
            names = tuple(certificate_names)
            if not names:
                raise self._refused("missing", UnauthenticatedError("no token: send `authorization: Bearer TOKEN`"))
            identity = directory.by_certificate(names)
            what = "certificate"
        if identity is None:
            raise self._refused("unknown", UnauthenticatedError(f"this {what} is not known here"))
        if identity.is_expired(datetime.now(UTC)):
            error = UnauthenticatedError(f"the {what} of {identity.name} expired at {identity.expires:%Y-%m-%d %H:%M}Z")
            raise self._refused("expired", error, identity)
        return identity

    def check_scope(self, identity: Identity | None, scope: Scope, what: str) -> None:
        """Checks that a caller has a scope.

        Raises:
            PermissionDeniedError: Not so.
        """
        if identity is not None and scope not in identity.scopes:
            has = ", ".join(sorted(identity.scopes))
            error = PermissionDeniedError(f"{what} needs the scope {scope.value}; {identity.name} has {has}")
            raise self._refused("scope", error, identity)

    def check_request(self, identity: Identity | None, rule: Rule, request: Message, what: str) -> None:
        """Checks that a caller may make this request, once its scope for the RPC is known.

        Raises:
            PermissionDeniedError: It names a collection that is not the caller's, or needs one more scope.
        """
        if identity is None:
            return
        for scope in rule.more_scopes(request):
            self.check_scope(identity, scope, what)
        if identity.collections:
            for collection in rule.collections(request):
                if not identity.may_use(collection):
                    its_own = ", ".join(identity.collections)
                    error = PermissionDeniedError(
                        f"collection {collection[:80]!r} is not among those of {identity.name}: {its_own}",
                        field="collection",
                    )
                    raise self._refused("collection", error, identity)

    def _token(self, authorization: Sequence[str]) -> str:
        scheme, _, token = authorization[0].partition(" ")
        token = token.strip()
        if len(authorization) > 1 or scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN_CHARACTERS:
            told = "authorization must be `Bearer TOKEN`, once"
            raise self._refused("malformed", UnauthenticatedError(told, field="authorization"))
        return token

    def _refused(self, reason: str, error: VitrineError, identity: Identity | None = None) -> VitrineError:
        """Counts a refusal, and logs it; a flood of them is one line a second."""
        metrics.REFUSALS.labels(reason).inc()
        now = time.monotonic()
        if now - self._logged < _LOG_SECONDS:
            self._unlogged += 1
        else:
            name = identity.name if identity is not None else None
            log.warning("call refused", reason=reason, error=error.message, caller=name, not_logged=self._unlogged)
            self._logged, self._unlogged = now, 0
        return error
