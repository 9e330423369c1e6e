"""`vitrine token`: what it makes, a service takes."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from services.local.stack import ROOT
from services.runtime.identities import Scope, load_directory
from vitrine.credentials import check_token


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vitrine.cli", "token", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_token_and_its_entry(tmp_path):
    file = tmp_path / "token"
    scopes = ("--scope", "read", "--scope", "write")
    made = run("shop-app", "--file", file, *scopes, "-c", "shop", "-c", "shop-*", "--days", 90)
    assert made.returncode == 0, made.stderr
    token = check_token(file.read_text().strip())
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in made.stdout + made.stderr
    (tmp_path / "auth.toml").write_text(made.stdout)
    identity = load_directory(tmp_path / "auth.toml").by_token(token)
    assert (identity.name, identity.scopes) == ("shop-app", {Scope.READ, Scope.WRITE})
    assert identity.collections == ("shop", "shop-*")
    assert timedelta(days=89) < identity.expires - datetime.now(UTC) <= timedelta(days=90)
    again = run("shop-app", "--file", file, *scopes)
    assert (again.returncode, "File exists" in again.stderr) == (2, True)
    assert file.read_text().strip() == token


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("shop app", "--scope", "read"), "must be 1 to 64 letters"),
        (("app", "--scope", "root"), "root: not among read, write, admin, metrics"),
        (("app", "--scope", "read", "-c", "*x"), "'*x' is no name"),
        (("app",), "--scope"),
    ],
)
def test_what_a_service_would_not_take_is_not_made(tmp_path, arguments, told):
    refused = run(*arguments, "--file", tmp_path / "token")
    assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr
    assert not (tmp_path / "token").exists()
