"""What is installed is pinned: by version and hash, and by nothing that says where it comes from."""

import re
import subprocess
from pathlib import Path

import pytest

from services.local.stack import ROOT

LISTS = sorted((ROOT / "requirements").glob("*.txt"))
APART = "policy.txt"  # never installed beside the others, and checkov pins old versions of much
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*(?:\[[a-z0-9,._-]+\])?)==(\S+?)(?: ; .*)?$", re.IGNORECASE)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(path):
    """The logical lines of a list, without comments."""
    joined = path.read_text().replace("\\\n", " ")
    return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]


@pytest.mark.parametrize("path", [*LISTS, ROOT / "constraints.txt"], ids=lambda path: path.name)
def test_every_package_is_pinned_by_version_and_hash(path):
    found = entries(path)
    assert found
    for entry in found:
        pin, *rest = re.split(r"\s+(?=--hash)", entry)
        assert _PIN.match(pin.strip()), entry[:120]
        assert rest, f"{pin} has no hash"
        assert all(_HASH.fullmatch(each.strip()) for each in rest), pin


def test_all_lists_agree_on_every_version():
    pinned = {}
    for path in LISTS:
        if path.name == APART:
            continue
        for entry in entries(path):
            pin = re.split(r"\s+(?=--hash)", entry)[0]
            name, _, version = pin.partition("==")
            pinned.setdefault((name.partition("[")[0].lower(), version.partition(";")[2].strip()), set()).add(
                version.partition(";")[0].strip()
            )
    assert {name: versions for name, versions in pinned.items() if len(versions) > 1} == {}


def test_every_list_is_installed_by_hash():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^PIP := .*--require-hashes", makefile, re.MULTILINE)
    installs = [line for line in makefile.splitlines() if " -r requirements/" in line and "install" in line.lower()]
    assert all("$(PIP)" in line or "--require-hashes" in line for line in installs), installs


def test_no_address_of_a_download_is_recorded():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    address = re.compile(r"--(?:extra-)?index-url|--find-links|https?://[^\s\"')]*(?:\.whl|\.tar\.gz|/simple)\b")
    lists = [
        name for name in tracked if re.fullmatch(r"requirements/.*|constraints\.txt|Makefile|\.ci/run|.*\.toml", name)
    ]
    assert "constraints.txt" in lists
    found = {name for name in lists if address.search(Path(ROOT, name).read_text())}
    assert found <= {"requirements/lock.sh"}  # the options with which none is written
