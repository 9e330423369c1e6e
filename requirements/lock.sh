#!/usr/bin/env bash
# Re-pins everything: `requirements/lock.sh` (needs uv on PATH; `--upgrade` takes the newest of each).
# One resolution over all sets first (constraints.txt), then one hashed list per install step, so that
# every environment agrees on every version. Hashes only: no download address is recorded.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-annotate --no-header "$@"; }
compile "$@" requirements/{build,run,cpu,dev,bench,milvus,milvus-server,audit}.in -o constraints.txt
compile -c constraints.txt requirements/build.in -o requirements/build.txt
compile -c constraints.txt requirements/{run,cpu}.in -o requirements/cpu.txt
compile -c constraints.txt requirements/{run,gpu}.in -o requirements/gpu.txt
compile -c constraints.txt requirements/dev.in -o requirements/dev.txt
compile -c constraints.txt requirements/{run,bench}.in -o requirements/bench.txt
compile -c constraints.txt requirements/{run,milvus}.in -o requirements/milvus.txt
compile -c constraints.txt requirements/milvus-server.in -o requirements/milvus-server.txt
compile -c constraints.txt requirements/audit.in -o requirements/audit.txt
# Of its own, for an environment of its own.
compile "$@" requirements/policy.in -o requirements/policy.txt
