# `make run` and `make test` set up everything they need, without root, from a fresh clone.
# GPU=1 uses the CUDA build of ONNX Runtime in an environment of its own.

PYTHON ?= python3
VENV := .venv$(if $(GPU),-gpu)
RUNTIME := $(if $(GPU),gpu,cpu)
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
MODEL := models/build/efficientnet-lite0/card.json
STUBS := clients/vitrine/v1/__init__.py
CODE := services clients models protos

# Test files are shared out over processes, in the order of tests/conftest.py; they often wait for processes of theirs.
WORKERS ?= 3
# Fewer where each starts whole deployments, and what is tested has deadlines to keep.
SLOW_WORKERS ?= 2
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder

export PYTHONPATH := $(CURDIR):$(CURDIR)/clients
ifdef GPU
export VITRINE_EMBEDDER_PROVIDER ?= cuda
endif

.PHONY: help run demo test test-slow test-milvus lint policy audit format protos protos-publish model bench eval clean
.DELETE_ON_ERROR:

help: ## Says what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: $(VENV)/.run $(MODEL) ## Starts everything, ingests the sample catalogue, searches, serves until Ctrl-C
	@$(BIN)/python -m services.local run

demo: $(VENV)/.run $(MODEL) ## The same, but ends after the search
	@$(BIN)/python -m services.local demo

test: $(VENV)/.dev $(MODEL) ## Runs the test suite (under 10 minutes)
	$(BIN)/python -m pytest -m "not slow and not milvus" -n $(WORKERS) $(SIDE_BY_SIDE) $(PYTEST)

test-slow: $(VENV)/.dev $(MODEL) ## Runs crash cycles, chaos and soak tests
	$(BIN)/python -m pytest -m "slow and not milvus" --timeout 1800 -n $(SLOW_WORKERS) $(SIDE_BY_SIDE) $(PYTEST)

test-milvus: $(VENV)/.milvus $(MODEL) ## Runs the contract's tests on a real Milvus server
	$(BIN)/python -m pytest -m milvus --timeout 600 $(PYTEST)

lint: $(VENV)/.dev ## Checks format, style, types and contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/python protos/generate.py --check

audit: .venv-audit/.audit ## Asks which pinned packages are known to be vulnerable (needs the internet)
	.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes $(foreach list,$(wildcard requirements/*.txt),-r $(list))

policy: .venv-policy/.done ## Checks Kubernetes manifests and the Dockerfile
	deploy/k8s/check.sh .venv-policy/bin

format: $(VENV)/.dev ## Formats the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(STUBS) ## Builds the gRPC stubs

protos-publish: $(VENV)/.run ## Makes the present contracts the ones breaking changes are measured against
	$(BIN)/python protos/generate.py --publish

model: $(MODEL) ## Builds the ONNX embedder from its published weights

bench: $(VENV)/.bench $(MODEL) ## Runs the benchmarks
	$(BIN)/python -m bench.end_to_end
	$(BIN)/python -m bench.embedder
	$(BIN)/python -m bench.index
	$(BIN)/python -m bench.gateway

eval: $(VENV)/.run $(MODEL) ## Search quality on the sample catalogue (CATALOGUE=dir for another)
	$(BIN)/python -m evaluate $(CATALOGUE)

clean: ## Removes everything that was built or stored
	rm -rf .venv .venv-gpu .venv-audit .venv-policy .vitrine models/build clients/vitrine/v1 clients/*.egg-info

# Build tools come first: hnswlib is compiled without build isolation, so that they too are pinned.
$(VENV)/.build: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Vitrine needs Python 3.11 or newer; set PYTHON=")'
	@echo "setting up $(VENV): build tools"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements/build.txt
	@touch $@

$(VENV)/.packages: requirements/$(RUNTIME).txt $(VENV)/.build
	@echo "setting up $(VENV): packages (compiles hnswlib, about a minute)"
	@$(PIP) --no-build-isolation -r requirements/$(RUNTIME).txt
	@touch $@

$(VENV)/.run: $(STUBS) clients/pyproject.toml $(VENV)/.packages
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable clients
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "setting up $(VENV): test and lint tools"
	@$(PIP) -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	@echo "setting up $(VENV): other model servers to compare with, and a plotting library"
	@$(PIP) -r requirements/bench.txt
	@touch $@

$(VENV)/.milvus: requirements/milvus.txt requirements/milvus-server.txt $(VENV)/.dev
	@echo "setting up $(VENV): Milvus, for the indexer's other engine and its tests"
	@$(PIP) -r requirements/milvus.txt -r requirements/milvus-server.txt
	@touch $@

.venv-audit/.audit: requirements/audit.txt
	@echo "setting up .venv-audit: pip-audit"
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
	@touch $@

.venv-policy/.done: requirements/policy.txt
	@echo "setting up .venv-policy: what checks manifests and Dockerfiles"
	@$(PYTHON) -m venv .venv-policy
	@.venv-policy/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/policy.txt
	@touch $@

$(STUBS): $(wildcard protos/vitrine/v1/*.proto) protos/generate.py $(VENV)/.packages
	@$(BIN)/python protos/generate.py

$(MODEL): $(wildcard models/*.py models/labels/*.txt) $(VENV)/.packages
	@$(BIN)/python -m models.build
