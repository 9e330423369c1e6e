"""Builds the gRPC stubs into the package, from a checkout's contracts; see pyproject.toml for the rest."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup

GENERATE = Path(__file__).resolve().parents[1] / "protos" / "generate.py"

# A source distribution has its stubs and no contracts; a checkout may have older stubs than its contracts.
if GENERATE.exists():
    subprocess.run([sys.executable, str(GENERATE)], check=True)

setup()
