"""A stack whose every service speaks TLS and asks who is calling: tokens at the gateway, certificates behind it."""

import asyncio
import hashlib
import os
import sys
from dataclasses import dataclass, field

from services.local.stack import ROOT, Ports, Stack
from tests.certificates import Authority
from tests.conftest import STEADY
from vitrine import Credentials, Tls

COLLECTION = "shop"


def token(name):
    return f"token-of-{name}-0123456789"


def token_entry(name, scopes, more=""):
    digest = hashlib.sha256(token(name).encode()).hexdigest()
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\nscopes = {scopes}\n{more}\n'


def certificate_entry(name, scopes, more=""):
    return f'[[certificate]]\nname = "{name}"\nsubject = "{name}.shop"\nscopes = {scopes}\n{more}\n'


CALLERS = (
    token_entry("reader", ["read"])
    + token_entry("writer", ["write"])
    + token_entry("admin", ["admin"])
    + token_entry("job", ["read", "write"])
    + token_entry("elsewhere", ["read", "write", "admin"], 'collections = ["elsewhere"]')
    + token_entry("old", ["read", "write", "admin"], "expires = 2020-01-01T00:00:00Z")
)
EVERYTHING = ["read", "write", "admin"]


@dataclass
class Secured:
    """The running stack, and what it takes to reach it."""

    stack: Stack
    authority: Authority
    certificates: dict = field(default_factory=dict)

    @property
    def services(self):
        """Addresses by the name of their contract."""
        return {
            "VisualSearch": self.stack.gateway,
            "Embedder": self.stack.embedder,
            "Indexer": self.stack.indexers[0],
        }

    def tls(self, name=None):
        """TLS with the certificate of one of the identities; None: without any."""
        return Tls(self.authority.file, *(self.certificates[name] if name else ()))

    def credentials(self, name, *, of="stranger"):
        """As the identity of a token (None: without one), on a connection whose certificate says nothing."""
        return Credentials(self.tls(of), token(name) if name else None)

    async def vitrine(self, *arguments, name="admin-job"):
        """Runs the command line with its settings in the environment; returns exit status, output and errors."""
        certificate, key = self.certificates[name]
        stack = self.stack
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vitrine.cli"),
            *("--gateway", stack.gateway, "--embedder", stack.embedder, "--indexers", ",".join(stack.indexers)),
            *map(str, arguments),
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "clients"),
                "VITRINE_TLS_CA_FILE": str(self.authority.file),
                "VITRINE_TLS_CERT_FILE": str(certificate),
                "VITRINE_TLS_KEY_FILE": str(key),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 120)
        return process.returncode, out.decode(), err.decode()


def secured(folder, model_dir):
    """Returns a stack to start."""
    authority = Authority(folder)
    names = ("gateway", "embedder", "admin-job", "stranger")
    certificates = {name: authority.issue(name, (f"{name}.shop",)) for name in names}
    certificate, key = authority.issue("server")
    (folder / "gateway.toml").write_text(CALLERS + certificate_entry("admin-job", EVERYTHING))
    (folder / "inner.toml").write_text(
        CALLERS
        + certificate_entry("gateway", ["read"], "speaks_for_others = true")
        + certificate_entry("embedder", EVERYTHING)
        + certificate_entry("admin-job", EVERYTHING)
    )
    environment = dict(STEADY)
    for service in ("GATEWAY", "EMBEDDER", "INDEXER"):
        auth = "gateway.toml" if service == "GATEWAY" else "inner.toml"
        settings = {
            "TLS_CERT_FILE": certificate,
            "TLS_KEY_FILE": key,
            "AUTH_FILE": folder / auth,
            "TLS_CLIENT_CA_FILE": authority.file,
        }
        if service != "INDEXER":
            own_certificate, own_key = certificates[service.lower()]
            settings |= {"PEER_CA_FILE": authority.file, "PEER_CERT_FILE": own_certificate, "PEER_KEY_FILE": own_key}
        environment |= {f"VITRINE_{service}_{name}": str(value) for name, value in settings.items()}
    stack = Stack(
        folder / "stack", shards=2, ports=Ports.free(2, health=True), model_dir=model_dir, environment=environment
    )
    return Secured(stack, authority, certificates)
