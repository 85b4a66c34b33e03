# Everything runs in the virtual environment .venv, which the first target that needs it makes.
# `make` alone lists the targets.

# What makes the virtual environment: 3.11 or newer.
PYTHON ?= python3
# Test processes. Each has one thread for torch: more of them only wait for each other.
JOBS ?= 3

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := agent memory_store eval examples scripts tests

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test check lint types imports proto-check readme format proto proto-release gpu-test faults soak docs docs-test pictures clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv and install the project with its development tools

# bin/pip is the last thing that venv makes: where it is, the environment is whole.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "==> Making the virtual environment $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "==> Installing into $(VENV) (the first time this takes about two minutes)"
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## teach a small model three facts, restart it, and ask again
	@echo "==> Demo"
	@$(BIN)/python -m agent.demo

test: install ## run all tests but those that need a GPU
	@echo "==> Tests: the fast ones"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow and not network and not gpu"
	@echo "==> Tests: slow ones and those that use the network"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "(slow or network) and not gpu and not golden"

gpu-test: install ## run the tests that need a CUDA device
	@echo "==> Tests on the GPU"
	$(BIN)/python -m pytest -m gpu

faults: install ## run all fault tests: kills, power loss, damaged files, disks that fail
	@echo "==> Fault tests (about half an hour)"
	$(BIN)/python -m tests.faults

soak: install ## teach, ask and watch for ten minutes; memory and open files must stay flat
	@echo "==> Soak test (ten minutes)"
	$(BIN)/python -m tests.soak

check: lint types imports proto-check test docs readme ## run everything that CI runs
	@echo "==> All checks passed"

lint: install ## check formatting and lint (ruff), and that the blocking client is generated
	@echo "==> Format and lint"
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python scripts/generate_client.py --check

types: install ## check types (mypy)
	@echo "==> Types"
	$(BIN)/mypy

imports: install ## check the directions of imports (import-linter)
	@echo "==> Import contracts"
	$(BIN)/lint-imports --no-logo

proto-check: install ## lint proto/, compare it with the last release, and its code with a fresh generation
	@echo "==> Protocol"
	cd proto && ../$(BIN)/buf lint
	cd proto && ../$(BIN)/buf breaking --against baseline.binpb
	@echo "==> Generated code"
	PYTHON=$(BIN)/python scripts/generate_proto.sh --check

docs: install ## build the documentation's site in site/; warnings are errors
	@echo "==> Documentation"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pictures: install ## make the pictures of the documentation anew (needs Chromium)
	$(BIN)/python scripts/pictures.py --pages

docs-test: install ## execute the code blocks of README, tutorial and how-tos (about 20 minutes)
	@echo "==> Blocks of the documentation"
	$(BIN)/python scripts/readme_blocks.py --timeout 900 README.md docs/tutorial.md docs/how-to/*.md

readme: install ## execute the code blocks of the README
	@echo "==> README blocks"
	$(BIN)/python scripts/readme_blocks.py README.md

format: install ## format the code and fix what ruff can fix
	@echo "==> Formatting"
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

proto: install ## generate the Python code of proto/, and the blocking client from the one for asyncio
	@echo "==> Generating"
	PYTHON=$(BIN)/python scripts/generate_proto.sh
	$(BIN)/python scripts/generate_client.py

proto-release: install ## take proto/ as what later changes must be compatible with: at a release
	cd proto && ../$(BIN)/buf build --exclude-source-info -o baseline.binpb

clean: ## remove the virtual environment, caches and builds
	@echo "==> Cleaning"
	rm -rf $(VENV) build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) proto -name __pycache__ -type d -prune -exec rm -rf {} +
