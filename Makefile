# Everything is set up in .venv and build/, and a second time there is nothing to do.
# PYTHON=… names the Python to build .venv with.

PACKAGES := api pipelines reports runners scores stores transforms
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PIP := .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input install
COMPILE := .venv/bin/uv --quiet --no-config pip compile --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup run test soak bench lint types servers lock clean FORCE

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: .venv/.runtime ## Make .venv from requirements.lock, with this checkout installed in it

run: .venv/.runtime ## Run the pipeline over the sample events and show the scores (needs only Python)
	@.venv/bin/group-scores run

test: .venv/.dev lint types servers ## Set up all, check it, run the tests (needs Java 17, Maven, Node 20)
	@.venv/bin/python -m pytest -n 2 --dist loadfile

soak: .venv/.dev servers ## Run the long forms of the tests
	@.venv/bin/python -m pytest -m soak --hypothesis-profile=soak --timeout=7200

bench: .venv/.dev servers ## Measure speed and memory
	@.venv/bin/python -m benchmarks

lint: .venv/.dev ## Check the style and the format
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check . || \
		{ echo "error: these are not formatted: .venv/bin/ruff format ." >&2; \
		.venv/bin/ruff format --check . >&2; exit 1; }

# mypy does not follow an editable install, so the packages get their real names by links.
types: .venv/.dev ## Check the types
	@rm -rf build/types && mkdir -p build/types/group_scores
	@for package in $(PACKAGES); do \
		ln -s "../../../$$package" "build/types/group_scores/$$package"; done
	@MYPYPATH=build/types .venv/bin/mypy --no-error-summary $(PACKAGES:%=-p group_scores.%)
	@MYPYPATH=build/types .venv/bin/mypy --no-error-summary -p tests.servers

servers: .venv/.dev ## Get what the test servers need: jars and a browser into the cache, Redis
	@.venv/bin/python -m tests.servers

# All hold setuptools, which the editable install builds with.
lock: .venv/.python ## Renew the lock files after a change of pyproject.toml (ARGS=--upgrade: the newest)
	@test -x .venv/bin/uv || $(PIP) uv
	@$(COMPILE) $(ARGS) --extra dev -o requirements-dev.lock pyproject.toml
	@echo 'setuptools>=77' | $(COMPILE) $(ARGS) -c requirements-dev.lock \
		-o requirements.lock pyproject.toml -
	@echo 'setuptools>=77' | $(COMPILE) $(ARGS) -c requirements-dev.lock --extra gcp \
		-o requirements-gcp.lock pyproject.toml -

clean: ## Remove .venv and all that was built; the servers' jars stay in the user's cache
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: .venv/.python requirements.lock pyproject.toml
	$(call install,requirements.lock)
	@touch $@

.venv/.dev: .venv/.python requirements-dev.lock pyproject.toml
	$(call install,requirements-dev.lock)
	@touch .venv/.runtime $@

define install
	@echo "Installing $(1) into .venv"
	@$(PIP) --require-hashes -r $(1)
	@$(PIP) --no-deps --no-build-isolation -e .
endef

# A .venv knows its place: in a checkout that was moved or copied it is made anew.
ifneq ($(shell cat .venv/.python 2>/dev/null),$(CURDIR))
.venv/.python: FORCE
endif
.venv/.python:
	@found=; for python in $(PYTHONS); do \
		if "$$python" -c '$(SUPPORTED)' 2>/dev/null; then found=$$python; break; fi; done; \
	if [ -z "$$found" ]; then \
		echo "error: no Python 3.11, 3.12 or 3.13 found (tried: $(PYTHONS)); install one, or name it with PYTHON=…" >&2; exit 1; fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "error: $$found cannot make a virtual environment; install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; fi; \
	"$$found" -m venv --clear .venv
	@echo "$(CURDIR)" > $@
