"""Builds the gRPC stubs into the package where a checkout has not built them yet; see pyproject.toml for the rest."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent

if not (HERE / "vitrine" / "v1" / "search_pb2.py").exists():
    subprocess.run([sys.executable, str(HERE.parent / "protos" / "generate.py")], check=True)

setup()
