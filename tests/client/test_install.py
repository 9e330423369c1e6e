"""`pip install ./clients` from a clean checkout: a package and command that need no repository, and typed."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys

import pytest

from services.local.stack import ROOT

GENERATED = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")

IMPORT_EVERYTHING = """
import importlib, pathlib, pkgutil, sys
import vitrine
assert pathlib.Path(sys.prefix) in pathlib.Path(vitrine.__file__).parents, vitrine.__file__
for name in vitrine.__all__:
    getattr(vitrine, name)
for module in pkgutil.walk_packages(vitrine.__path__, "vitrine."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(vitrine.Vitrine.search.__doc__)
"""

MISUSED = """
from vitrine import AsyncVitrine, Vitrine

with Vitrine("127.0.0.1:50050") as shop:
    shop.search("catalogue", imge=b"")
    shop.recommend("catalogue", liked=3)
    for page in shop.search_pages("catalogue", text="oak", k="ten"):
        page.product
"""


def run(*command, cwd, status=0):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installed_package_works_alone_and_is_typed(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "protos", checkout / "protos")
    shutil.copytree(ROOT / "clients", checkout / "clients", ignore=GENERATED)
    shutil.rmtree(checkout / "clients" / "vitrine" / "v1", ignore_errors=True)
    # The versions that everything else is tested with; their hashes are checked where those are installed.
    pinned = tmp_path / "pinned.txt"
    pins = re.findall(r"^([\w.-]+==[^\\\n]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pinned.write_text("\n".join(pins))
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "-c", pinned, checkout / "clients", cwd=tmp_path)
    run(*pip, "check", cwd=tmp_path)
    shutil.rmtree(checkout)

    words = run(python, "-I", "-c", IMPORT_EVERYTHING, cwd=tmp_path)
    assert "shop.search(" in words
    assert "await" not in words
    assert "ingest" in run(tmp_path / "venv" / "bin" / "vitrine", "--help", cwd=tmp_path)

    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--config-file", os.devnull)
    examples = sorted((ROOT / "examples" / "python").glob("*.py"))
    run(*mypy, *examples, cwd=tmp_path)
    misused = tmp_path / "misused.py"
    misused.write_text(MISUSED)
    told = run(*mypy, misused, cwd=tmp_path, status=1)
    for line, word in ((5, '"imge"'), (6, '"liked"'), (7, '"k"'), (8, '"product"')):
        assert re.search(rf"misused.py:{line}: error: .*{word}", told), told


def test_stubs_are_generated_by_what_the_package_pins():
    described = (ROOT / "clients" / "pyproject.toml").read_text()
    (generator,) = re.findall(r'"grpcio-tools==([\d.]+)"', described)
    assert generator == importlib.metadata.version("grpcio-tools")
    stubs = ROOT / "clients" / "vitrine" / "v1"
    (code,) = re.findall(r"^# Protobuf Python Version: ([\d.]+)$", (stubs / "search_pb2.py").read_text(), re.MULTILINE)
    (runtime,) = re.findall(r'"protobuf>=([\d.]+)"', described)
    assert runtime == code
    assert re.findall(r'"grpcio>=([\d.]+)"', described) == [generator]


def test_a_client_of_the_gateway_loads_no_search_engine():
    """Who only asks pays for no index, numbers or filters: a fifth of a second at every start of a command."""
    code = "import sys, vitrine.client; print(*sorted({'numpy', 'lark', 'vitrine.engine'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
