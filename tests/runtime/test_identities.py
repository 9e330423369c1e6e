"""The file of identities: what is in it, and what must not be."""

import hashlib
import re
from datetime import UTC, datetime

import pytest

from services.runtime.identities import MAX_ENTRIES, Directory, Identity, Scope, load_directory
from services.runtime.settings import SettingsError

TOKEN = "a-token-of-32-characters-0123456"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
GOOD = f"""
[[token]]
name = "shop-app"
sha256 = "{DIGEST}"
scopes = ["read", "write"]
collections = ["shop", "shop-*"]
expires = 2999-01-01T00:00:00+02:00

[[certificate]]
name = "gateway"
subject = "spiffe://shop/gateway-*"
scopes = ["read"]
speaks_for_others = true
"""


def write(tmp_path, text):
    file = tmp_path / "auth.toml"
    file.write_text(text)
    return file


def test_a_file_names_who_may_do_what(tmp_path):
    directory = load_directory(write(tmp_path, GOOD))
    app = directory.by_token(TOKEN)
    assert (app.name, app.scopes) == ("shop-app", {Scope.READ, Scope.WRITE})
    assert app.expires == datetime(2998, 12, 31, 22, tzinfo=UTC)
    assert [app.may_use(name) for name in ("shop", "shop-eu", "shopping", "other", "")] == [True, True] + [False] * 3
    assert directory.by_token(TOKEN + "x") is None
    gateway = directory.by_certificate(["unknown", "spiffe://shop/gateway-1"])
    assert (gateway.name, gateway.speaks_for_others, gateway.may_use("anything")) == ("gateway", True, True)
    assert directory.by_certificate(["spiffe://shop/embedder"]) is None
    assert directory.by_certificate([]) is None


def test_the_end_is_the_end():
    identity = Identity("app", frozenset(), expires=datetime(2030, 1, 1, tzinfo=UTC))
    assert not identity.is_expired(datetime(2029, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert identity.is_expired(datetime(2030, 1, 1, tzinfo=UTC))
    assert not Identity("app", frozenset()).is_expired(datetime(9999, 1, 1, tzinfo=UTC))


def test_every_token_is_found_wherever_it_stands():
    identities = [Identity(f"app{number}", frozenset()) for number in range(50)]
    directory = Directory([(hashlib.sha256(each.name.encode()).digest(), each) for each in identities])
    assert [directory.by_token(each.name) for each in identities] == identities


BAD = {
    "names nobody": "",
    "Expected ']]'": "[[token]\n",
    "token.0.sha256: Value error, must be the sha256 of the token": GOOD.replace(DIGEST, "hunter2-hunter2-hunter2"),
    "token.0.scopes.0: Input should be 'read', 'write', 'admin' or 'metrics'": GOOD.replace('"read", "w', '"root", "w'),
    "token.0.scopes: List should have at least 1 item": GOOD.replace('["read", "write"]', "[]"),
    "token.0.collections: List should have at least 1 item": GOOD.replace('["shop", "shop-*"]', "[]"),
    "token.0.collections.1: Value error, must be a name": GOOD.replace('"shop-*"', '"*-shop"'),
    "token.0.name: Value error, must be 1 to 64 letters": GOOD.replace('"shop-app"', '"shop app"'),
    "token.0.expires: Input should have timezone info": GOOD.replace("+02:00", ""),
    "token.0.scope: Extra inputs are not permitted": GOOD.replace("expires", "scope = 1\nexpires"),
    "certificate.0.subject: Field required": GOOD.replace("subject", "#"),
    "tokens: Extra inputs": GOOD + "[[tokens]]\n",
    "token 1 has the sha256 of another": GOOD + f'[[token]]\nname = "b"\nsha256 = "{DIGEST}"\nscopes = ["read"]\n',
    f"at most {MAX_ENTRIES} items": "".join(
        f'[[token]]\nname = "a"\nsha256 = "{number:064x}"\nscopes = ["read"]\n' for number in range(MAX_ENTRIES + 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("told", BAD)
def test_what_is_wrong_is_named_and_never_quoted(tmp_path, told):
    with pytest.raises(SettingsError, match=re.escape(told)) as caught:
        load_directory(write(tmp_path, BAD[told]))
    assert "auth_file" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        load_directory(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not text"):
        load_directory(tmp_path / "binary.toml")
