"""The client for Node: installed from its lock file, generated from the protos, searching a real stack."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import missing
from tests.examples.conftest import EXAMPLES

pytestmark = pytest.mark.slow

NODE = EXAMPLES / "node"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Runs commands in a clean copy of the example, with its client generated."""
    for program, package in (("node", "nodejs"), ("npm", "npm")):
        if shutil.which(program) is None:
            missing(package)
    root = tmp_path_factory.mktemp("checkout")
    copy = shutil.copytree(NODE, root / "examples" / "node", ignore=shutil.ignore_patterns("node_modules", "gen"))
    shutil.copytree(NODE.parents[1] / "protos", root / "protos")

    def run(*command, **environment):
        return subprocess.run(
            command,
            cwd=copy,
            env={**os.environ, "PYTHON": sys.executable, **environment},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    for command in (("npm", "ci", "--prefer-offline", "--no-audit", "--no-fund"), ("npm", "run", "generate")):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    yield run
    shutil.rmtree(root)


def test_the_lock_file_pins_by_hash_and_names_no_address():
    text = (NODE / "package-lock.json").read_text()
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert len(packages) >= 4
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "resolved" not in text
    assert "://" not in text
    asked = json.loads((NODE / "package.json").read_text())
    for name, version in (asked["dependencies"] | asked["devDependencies"]).items():
        assert packages[f"node_modules/{name}"]["version"] == version


@pytest.mark.asyncio(loop_scope="module")
async def test_a_search_from_node(shop, node, tmp_path):
    url = f"http://{shop.stack.gateway}"
    done = node("node", "search.js", "shop", str(shop.photo), VITRINE_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    *products, coverage = done.stdout.splitlines()
    assert [line.split()[0] for line in products] == ["1", "2", "3", "4", "5"]
    assert "Armchair" in done.stdout
    assert coverage == "2 of 2 shards answered"

    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    for collection, photo, told in (("nowhere", shop.photo, "NotFound: "), ("shop", damaged, "InvalidArgument: ")):
        refused = node("node", "search.js", collection, str(photo), VITRINE_URL=url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(told)
