"""Who a request to the API comes from, and whether it may have what it asks for: the same rules as over gRPC."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from services.runtime.guard import Guard
from services.runtime.identities import Identity
from services.runtime.permissions import RULES, Message, Rule
from vitrine.callers import CLIENT_HEADER, set_caller
from vitrine.credentials import AUTHORIZATION
from vitrine.errors import PermissionDeniedError


@dataclass(frozen=True)
class Asker:
    """Who sends a request."""

    guard: Guard
    rule: Rule
    """Of the RPC that the operation stands for."""
    operation: str
    identity: Identity | None
    """None: nobody is asked who they are."""

    @property
    def sees_all(self) -> bool:
        """Whether every collection is its own."""
        return self.identity is None or not self.identity.collections

    def permit(self, message: Message) -> None:
        """Checks that the asker may make this call.

        Raises:
            PermissionDeniedError: It names a collection that is not the asker's.
        """
        self.guard.check_request(self.identity, self.rule, message, self.operation)

    def prune(self, response: Message) -> None:
        """Takes out of a response what the asker must not see."""
        if self.identity is not None and self.rule.prune is not None:
            self.rule.prune(response, self.identity)


def identify(request: Request, guard: Guard, rpc: str) -> Asker:
    """The one place that decides who a request to the API comes from, and whether it is let in.

    Raises:
        UnauthenticatedError: It has no token, or one that is not known.
        PermissionDeniedError: A page of another site had a browser send it, or it lacks the scope.
        InvalidArgumentError: The caller's name is none.
    """
    if request.method == "POST" and request.headers.get("sec-fetch-site") == "cross-site":
        raise PermissionDeniedError("requests from pages of other sites are refused")
    operation = f"{request.method} {request.url.path}"
    rule = RULES[rpc]
    identity = guard.identify(request.headers.getlist(AUTHORIZATION))
    guard.check_scope(identity, rule.scope, operation)
    caller = request.headers.get(CLIENT_HEADER, "")
    set_caller(caller if identity is None else identity.caller(caller))
    return Asker(guard, rule, operation, identity)
