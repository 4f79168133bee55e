# Everything happens in .venv, which the first target that needs it creates.
# `make run` installs what a run needs, `make test` adds the tools; each again only when pyproject.toml has changed.

# Makes .venv. Empty: python3, or the system's where that is the faster build of the two.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SCENARIO ?= scenarios/outage.yaml
# One more than there are cores: tests with real brokers and processes wait more than they compute.
JOBS ?= $(shell expr $$(nproc) + 1)
ROOMS := agent cloud fleet reports

.DEFAULT_GOAL := help
.PHONY: help run native test slow lint format bench docs picture clean
.DELETE_ON_ERROR:

help:
	@echo "make run     set up, then run $(SCENARIO) (another: make run SCENARIO=scenarios/conflict.yaml)"
	@echo "make native  compile the simulator's core again, after a change of the source"
	@echo "make test    set up, then the fast tests"
	@echo "make lint    style, types and import rules"
	@echo "make format  rewrite the source in the house format"
	@echo "make slow    the tests that take minutes"
	@echo "make bench   the benchmarks"
	@echo "make docs    write the parts of the documents that come from the code"
	@echo "make picture run two scenarios and picture their reports in docs/report*.png (needs chromium)"
	@echo "make clean   remove .venv and all caches; runs/ stays"

run: $(VENV)/.for-run $(VENV)/.native
	@$(BIN)/fleet run $(SCENARIO)

# For whoever changes the source: a compiled core is used only for the very source that it was compiled from.
native: $(VENV)/.for-run
	@$(BIN)/python -m fleet.native.build

test: $(VENV)/.for-dev
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow"

slow: $(VENV)/.for-dev
	@HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m slow --timeout 3600

lint: $(VENV)/.for-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(ROOMS) tests
	@$(BIN)/lint-imports

format: $(VENV)/.for-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.for-dev
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.for-dev
	@$(BIN)/python -m docs.generate

picture: $(VENV)/.for-dev
	@$(BIN)/python -m docs.picture

clean:
	@rm -rf $(VENV) tests/onetable/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python="$(PYTHON)"; \
	[ "$$python" ] || python=$$(python3 fleet/native/interpreter.py python3 /usr/bin/python3 2>/dev/null); \
	python=$${python:-python3}; \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "Fleet needs Python 3.11, 3.12 or 3.13; $$python is another one, or missing." \
	         "Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }; \
	echo "Creating $(VENV) with $$("$$python" --version) ($$python)"; \
	"$$python" -m venv $(VENV) || { \
	    rm -rf $(VENV); echo "Could not create $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

# The stamp of the tools covers a run as well, so that a run after a test installs nothing.
$(VENV)/.for-run: pyproject.toml | $(BIN)/python
	@echo "Installing Fleet into $(VENV) (about a minute, once)"
	@$(PIP) install --editable '.[fleet,report,native]'
	@touch $@

$(VENV)/.for-dev: pyproject.toml | $(BIN)/python
	@echo "Installing Fleet and its test tools into $(VENV) (about a minute, once)"
	@$(PIP) install --editable '.[fleet,report,native,dev]'
	@touch $(VENV)/.for-run $@

# Once, and not again when the source changes: then everything runs interpreted until `make native`. A machine without a
# C compiler is told so, and runs interpreted as well.
$(VENV)/.native: | $(VENV)/.for-run
	@$(BIN)/python -m fleet.native.build || true
	@touch $@
