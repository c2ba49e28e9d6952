# Set-up, run, test and check. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3.14 python3; do \
	if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v $$each; break; fi; done)
VENV ?= .venv
REQUIREMENTS ?= requirements/dev.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
ARGS ?=
PAGES := streamlit_extension/demo/app
PYTEST_ARGS ?=

.PHONY: help run test cover check lint types audit bench soak stack lock manifests clean setup

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY)

$(READY): $(REQUIREMENTS) pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found" >&2; exit 1; }
	@echo "==> setting up $(VENV) with $$($(PYTHON) --version) from $(REQUIREMENTS) (a minute or two the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(REQUIREMENTS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
	@echo "==> ready"

run: $(READY)  ## start the sample application on port 8501 (ARGS="--simulate 5")
	@echo "==> starting the sample application; Ctrl+C stops it"
	@exec $(BIN)/streamlit-extension demo $(ARGS)

test: $(READY)  ## run the tests
	@echo "==> running the tests (what needs PostgreSQL, Redis, haproxy or Chromium is skipped where they are absent)"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

cover: $(READY)  ## run the tests and tell what of the code they run
	@$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

check: lint types test audit  ## all of it: lint, types, tests, audit

lint: $(READY)  ## ruff
	@echo "==> lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)  ## mypy --strict
	@echo "==> types"
	@$(BIN)/mypy
	@MYPYPATH=$(PAGES) $(BIN)/mypy --explicit-package-bases $(PAGES)/*.py $(PAGES)/views/*.py

audit: $(READY)  ## known vulnerabilities of what is locked
	@echo "==> audit"
	@$(BIN)/python scripts/audit.py $(REQUIREMENTS)

bench: $(READY) $(PEERS)/.ready  ## measure beside the peers (needs wrk)
	@for each in $$(grep -l __main__ benchmarks/*.py); do echo "==> $$each"; $(BIN)/python $$each || exit 1; done

$(PEERS)/.ready: requirements/peers.txt
	@echo "==> setting up $(PEERS), the benchmarks' peers"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

soak: $(READY)  ## the tests at their full sizes
	@SOAK=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

stack:  ## build the backends that tests talk to, from Go and Maven modules (minutes, once)
	@$(PYTHON) scripts/stack_build.py

LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	--python-version 3.11 pyproject.toml --extra dev

lock: $(READY)  ## write the lock files anew
	@echo "==> locking"
	@$(LOCK) --upgrade -o requirements/dev.txt
	@$(LOCK) --upgrade --constraint requirements/oldest.in -o requirements/oldest.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --upgrade requirements/peers.in -o requirements/peers.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --constraint requirements/dev.txt pyproject.toml --extra demo --extra grpc -o requirements/image.txt
	@echo hatchling | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --python-version 3.11 --constraint requirements/dev.txt - -o requirements/build.txt

manifests: $(READY)  ## write what deploy/kubernetes holds of other files
	@$(BIN)/python scripts/manifests.py

clean:  ## remove what the targets have made
	@rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build htmlcov .coverage
