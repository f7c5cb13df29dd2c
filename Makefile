# kfloop: what one types. `make` alone lists it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= 2# test files that run at the same time
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install runtime demo test test-slow test-label-studio lint images bench bench-data clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make $(VENV) and install kfloop and its tools into it

# torch first and alone: whatever build of it the index or the user already gave is kept by the line after.
# The editable install maps only `kfloop`; new modules need no new install, a changed pyproject.toml does.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q "torch>=2.11,<2.14"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

runtime: $(STAMP) ## Put the embedded Triton into its own environment (once)
	$(BIN)/python -m kfloop.serving install-runtime

demo: runtime ## Watch the whole story on real data
	$(BIN)/kfloop demo

test: runtime ## Run the tests, without the slow ones
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

test-slow: runtime ## Run the slow tests (but those that install a Label Studio)
	$(BIN)/pytest -m "slow and not label_studio" --durations=30 -n $(WORKERS) --dist loadfile -o timeout=1200

test-label-studio: $(STAMP) ## Run the tests against a real Label Studio (installs one, 1 GB)
	$(BIN)/pytest -m label_studio

lint: $(STAMP) ## Style, formatting, types, layers, components, compiled pipelines
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/kfloop check

images: $(STAMP) ## Build the container images (docker or podman)
	$(BIN)/python -m build --wheel
	infra/images/build.sh

bench: runtime ## Time kfloop against its peers (not part of the tests)
	$(BIN)/python benchmarks/loop.py

bench-data: $(STAMP) ## Measure ingest, validation and label checks against their peers (10 minutes, 6 GB of disk)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/data.py

clean: ## Remove what building and testing left (not $(VENV), not a workspace)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -not -path './$(VENV)/*' -prune -exec rm -rf {} +
