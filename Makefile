# Needs only python3 (3.8 or newer) and make; everything else goes into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help test test-model test-cli demo docs check cover soak soak-chaos audit bench bench-claims mutants matrix artefacts clean

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := pyproject.toml requirements.txt
# Much of what the tests do is to wait for processes: several of them at a time take half as long.
PARALLEL := -n auto --dist worksteal

help:
	@echo "make test                 run the tests"
	@echo "make test-model           test against llama.cpp's server with a small model, and LiteLLM's proxy (builds the server the first time)"
	@echo "make test-cli             play the recorded cases of tools to Claude Code's own command too, side by side (installs it the first time), and write docs/tool-fidelity.md"
	@echo "make demo                 run a team of agents against a stand-in server (LIVE=1: against the real API)"
	@echo "make check                lint, format, types, the rules of the house, the public names"
	@echo "make docs                 write docs/reference.md and docs/commands.md anew from the sources"
	@echo "make cover                run the tests and write the coverage report to htmlcov/"
	@echo "make soak                 run the long form of the tests of cache, bulk runs, workflows and ledger: every bit, every crash (half an hour), then:"
	@echo "make soak-chaos           run the storms of 100 seeds, and 200,000 calls in ten minutes or more (half an hour)"
	@echo "make audit                ask PyPI whether an installed package has known vulnerabilities"
	@echo "make bench                measure everything beside its peers and write benchmarks/results.md (half an hour; PARTS=\"calls\": only these)"
	@echo "make bench-claims         measure what was promised, coverage too, and write its page (15 minutes)"
	@echo "make mutants              put one fault at a time into key, signing, retry, pacing and budget: a test has to fail (MUTANTS=\"--only limits.rate_limiter\": that one)"
	@echo "make matrix               run the tests on every Python from 3.8 to 3.13 that is here (MATRIX=\"3.8 3.13\": only these), and with the oldest dependencies (MATRIX=\"oldest oldest-sdk\")"
	@echo "make artefacts            build wheel and source distribution, install each on the oldest and the newest Python here, and use it"
	@echo "make clean                remove environments, caches and reports"

test: .venv/dev
	$(BIN)/pytest tests/ -v --extras $(PARALLEL)

test-model: .venv-model/ready .venv-litellm/ready
	.venv-model/bin/pytest model_tests/ -v $(MODEL)

test-cli: .venv-cli/ready
	@command -v bwrap >/dev/null || { echo "Commands of agents run in bubblewrap: install it (on Debian and Ubuntu: apt-get install bubblewrap)." >&2; exit 1; }
	PYTHONPATH=tests .venv-cli/bin/python -m cli_tests $(CASES)

demo: .venv/runtime
	$(BIN)/claude-force demo $(if $(LIVE),--live)

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict claude_force tests/typing_api.py
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest -q tests/test_house.py tests/test_public_names.py

docs: .venv/dev
	$(BIN)/python scripts/reference.py

cover: .venv/dev
	$(BIN)/pytest tests/ --extras $(PARALLEL) --cov=claude_force --cov-report=term --cov-report=html
	@echo "Report: htmlcov/index.html"

soak: .venv/dev
	$(BIN)/pytest tests/test_cache_robustness.py tests/test_cache_model.py tests/test_run_many.py tests/test_performance_tracker.py \
	  tests/test_workflow_runs.py tests/test_workflow_kills.py tests/test_any_bytes.py -v --soak
	$(MAKE) soak-chaos

soak-chaos: .venv/dev
	$(BIN)/pytest tests/test_chaos.py tests/test_soak.py -v --soak

audit: .venv/dev
	python3 -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r .venv-audit/installed.txt

bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks $(PARTS)

bench-claims: .venv/dev
	$(BIN)/python -m benchmarks.claims $(CLAIMS)

mutants: .venv-mutants/ready
	.venv-mutants/bin/python scripts/mutants.py $(MUTANTS)

matrix:
	@python3 scripts/matrix.py $(MATRIX)

artefacts:
	@python3 scripts/artefacts.py

clean:
	rm -rf .venv .venv-* build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are files in .venv, so a changed requirement installs again and a removed .venv starts over.
.venv/runtime: $(SOURCES)
	@$(make-venv)
	$(PIP) install --quiet --editable .
	@touch $@

.venv/dev: $(SOURCES)
	@$(make-venv)
	$(PIP) install --quiet --editable ".[dev]"
	@touch .venv/runtime $@

.venv-bench/ready: $(SOURCES) benchmarks/peers.txt
	python3 -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[durable,otel]" -r benchmarks/peers.txt
	@touch $@

# Plain instructions, because virtual machines claim some that they have not; nothing but what the server needs.
.venv-model/ready: export CMAKE_ARGS ?= -DGGML_NATIVE=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
.venv-model/ready: export LLAMA_CPP_BUILD_JOBS ?= 2
.venv-model/ready: $(SOURCES) model_tests/requirements.txt
	python3 -m venv .venv-model
	.venv-model/bin/python -m pip install --quiet --disable-pip-version-check --editable . -r model_tests/requirements.txt
	@touch $@

# Apart: a hundred packages that pin each other, and none of them is the package's business.
.venv-litellm/ready: model_tests/litellm.txt
	python3 -m venv .venv-litellm
	.venv-litellm/bin/python -m pip install --quiet --disable-pip-version-check -r model_tests/litellm.txt
	@touch $@

# Only the wheel: the command in it needs nothing of Python's.
.venv-cli/ready: $(SOURCES) cli_tests/requirements.txt
	python3 -m venv .venv-cli
	.venv-cli/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	.venv-cli/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r cli_tests/requirements.txt
	@touch $@

.venv-mutants/ready: $(SOURCES) scripts/mutants.txt
	python3 -m venv --clear .venv-mutants
	.venv-mutants/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]" -r scripts/mutants.txt
	@touch $@

# pip before 21.3 can't install a pyproject.toml package in editable mode.
define make-venv
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then \
  echo "Python 3.8 or newer is needed as python3." >&2; exit 1; fi; \
if ! $(PIP) --version >/dev/null 2>&1; then \
  if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then \
    echo "Python's venv module is missing: install it (on Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; fi; \
  echo "Making .venv"; python3 -m venv --clear .venv; \
fi; \
$(PIP) install --quiet "pip>=21.3"
endef
