"""Builds the stubs (`vitrine.v1`) and checks the contracts.

`python protos/generate.py` writes the Python stubs and their type stubs to `clients/vitrine/v1`;
`python protos/generate.py --check` lints the contracts and compares them with the published ones
(`protos/published.binpb`) for breaking changes; `--publish` makes the present contracts the published ones.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
OUTPUT = PROTOS.parent / "clients" / "vitrine" / "v1"
PUBLISHED = PROTOS / "published.binpb"


def run_protoc(*options: str) -> None:
    """Runs protoc over every contract; exits with its status where it fails."""
    site_packages = Path(status_pb2.__file__).parent.parent.parent  # googleapis-common-protos ships sources
    well_known = Path(protoc.__file__).parent / "_proto"
    # Plugins are console scripts beside this interpreter, whether or not its environment is activated.
    plugins = [
        f"--plugin={script.name}={script}"
        for script in Path(sys.executable).parent.glob("protoc-gen-*")
        if script.suffix in ("", ".exe")
    ]
    sources = sorted(str(path) for path in PROTOS.glob("vitrine/**/*.proto"))
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{site_packages}",
        f"-I{well_known}",
        *plugins,
        *options,
        *sources,
    ]
    status = protoc.main(arguments)
    if status != 0:
        sys.exit(status)


def generate() -> None:
    """Writes the stubs, replacing earlier ones only once protoc has succeeded."""
    with tempfile.TemporaryDirectory() as temporary:
        run_protoc(
            f"--python_out={temporary}",
            f"--grpc_python_out={temporary}",
            f"--mypy_out=quiet,readable_stubs:{temporary}",
            f"--mypy_grpc_out=quiet:{temporary}",
        )
        built = Path(temporary) / "vitrine" / "v1"
        (built / "__init__.py").write_text('"""Stubs generated from protos/vitrine/v1; do not edit."""\n')
        shutil.rmtree(OUTPUT, ignore_errors=True)
        shutil.copytree(built, OUTPUT)
    print(f"stubs: {len(list(OUTPUT.glob('*_pb2*.py')))} modules in {OUTPUT.relative_to(PROTOS.parent)}")


def check() -> int:
    """Lints and looks for breaking changes; returns the worst exit status."""
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary) / "contracts.binpb"
        run_protoc(f"--descriptor_set_out={image}", "--include_imports", "--include_source_info")
        buf = str(Path(sys.executable).parent / "buf")
        config = ["--config", str(PROTOS / "buf.yaml")]
        lint = subprocess.run([buf, "lint", str(image), *config], check=False)
        breaking = subprocess.run([buf, "breaking", str(image), "--against", str(PUBLISHED), *config], check=False)
        return max(lint.returncode, breaking.returncode)


def main() -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="lint, and compare with the published contracts")
    action.add_argument("--publish", action="store_true", help="make these the published contracts")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    if arguments.publish:
        run_protoc(f"--descriptor_set_out={PUBLISHED}", "--include_imports")
        return 0
    generate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
