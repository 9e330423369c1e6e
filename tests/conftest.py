"""Shared fixtures: real models, and real stacks on free loopback ports."""

import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

from models.tiny import build_tiny
from services.local import ports
from services.local.stack import ROOT, Ports, Stack

# A timing never decides a test: hypothesis by itself allows an example 200 ms, which a busy machine may take from any.
settings.register_profile(
    "untimed",
    settings.default,
    deadline=None,
    suppress_health_check=[*settings.default.suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("untimed")

# Processes that run tests side by side (pytest-xdist) must not find the same port free at the same time.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ports.PORTS = ports.PORTS[_WORKER % 8 :: 8]


_LONGEST_FIRST = ("indexer", "cli", "end_to_end", "gateway", "recognition", "security", "deploy", "bench", "embedder")


def pytest_collection_modifyitems(items):
    """Begins with what starts the most processes: else one worker is still at it when the others have nothing left."""

    def rank(item):
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Makes what a test logged fit to be sent to the process that reports: some log what UTF-8 cannot say."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Directory of a tiny real CNN (64 x 64 in, 32-d out): fast, and useless at telling products apart."""
    return build_tiny(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def lite_model():
    """Directory of the default model, built where it is not."""
    subprocess.run([sys.executable, "-m", "models.build"], cwd=ROOT, check=True)
    return ROOT / "models" / "build" / "efficientnet-lite0"


STEADY = {
    "VITRINE_EMBEDDER_LANES": "2",
    "VITRINE_EMBEDDER_INTRA_OP_THREADS": "1",
    "VITRINE_EMBEDDER_MAX_BATCH": "1",
    "VITRINE_EMBEDDER_INTERACTIVE_QUEUE_SECONDS": "5",
}
"""Settings with which an embedder has nothing to measure at start, and refuses nobody whom other tests keep waiting."""


def missing(package, install="Debian: apt-get install {}"):
    """Skips a test that needs a package; fails it where that must be there (`.ci/run` says so)."""
    told = f"{package} is not installed ({install.format(package)})"
    if package in os.environ.get("VITRINE_TEST_REQUIRES", "").split():
        pytest.fail(told)
    pytest.skip(told)


@pytest.fixture
def make_stack(tmp_path, tiny_model):
    """Builds stacks that keep their data under the test's directory; the test starts and stops them."""

    def make(*, name="stack", shards=2, model_dir=tiny_model, environment=None):
        return Stack(
            tmp_path / name,
            shards=shards,
            ports=Ports.free(shards),
            model_dir=model_dir,
            environment=STEADY | (environment or {}),
        )

    yield make
    shutil.rmtree(tmp_path, ignore_errors=True)  # index data adds up over a long session
