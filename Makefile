# Two commands: `make study` and `make test`. Both need nothing but Python 3.11, make and the package registry.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# compile each library once: without its bytecode every process that imports torch compiles it anew
export PYTHONDONTWRITEBYTECODE :=
ifneq ($(wildcard ../shared/data),)
export CLOUDCHAMBER_DATA ?= $(abspath ../shared/data)
endif

.PHONY: study test test-slow lint docs examples bench clean

study: $(VENV)/.study
	@mkdir -p reports
	@$(BIN)/chamber study spot --report reports/spot.html

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.test $(VENV)/.examples
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.test
	$(BIN)/python scripts/build_docs.py

examples: $(VENV)/.test $(VENV)/.examples
	$(BIN)/python scripts/run_examples.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/spot.py
	$(BIN)/python benchmarks/moe_balance.py
	$(BIN)/python benchmarks/transactions.py
	$(BIN)/python benchmarks/jail.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/attention_sla.py
	$(BIN)/python benchmarks/attention_methods.py

clean:
	rm -rf $(VENV) site reports .mypy_cache .ruff_cache .hypothesis

# uv makes the environment in seconds; it is itself installed by pip into the same environment
$(BIN)/uv:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "cloudchamber needs Python 3.11 or newer, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.study: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[spot]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all]' \
		--group test --group lint --group docs
	@touch $@ $(VENV)/.study

# torch is large, and only the training example and its slow test need it
$(VENV)/.examples: pyproject.toml constraints.txt | $(VENV)/.test
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group examples
	@touch $@
