# Each target makes .venv on its own; nothing but git and python3 (3.11 or newer) is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := .venv-models
PEERS := .venv-peers
BROWSER := .venv-browser
COMMA := ,
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: demo test test-browser test-models test-peers quality lint clean

demo: $(VENV)/.installed
	$(BIN)/srd-onnx explain squeezenet11 models/chelsea.png --out demo
	@echo "The pictures are in $(CURDIR)/demo:"
	@ls demo/*.png

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto

# The reports in a real browser, in an environment of its own; `make test` runs them too where Chromium is installed.
test-browser: $(BROWSER)/.installed
	@test -n "$(CHROMIUM)" || \
	    { apt-get update && apt-get install --yes chromium; } || \
	    { echo "Chromium is needed: install it (Debian: apt-get install chromium), then run this again."; exit 1; }
	$(BROWSER)/bin/python -m pytest tests/test_report_browser.py

# Real models: exports from PyTorch, which has an environment of its own, and trained ones from PyPI. Half an hour.
test-models: $(MODELS)/.installed
	$(MODELS)/bin/python -m pytest -W ignore tests_models

# Our methods and metrics against captum, zennit, pytorch-grad-cam and Quantus, in an environment of its own.
test-peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m pytest -W ignore tests_peers

# All methods by all metrics on six models: hours; a run that was stopped goes on. Writes docs/quality.md.
JOBS ?= 1
quality: $(MODELS)/.installed
	$(MODELS)/bin/python -m benchmarks.quality --jobs $(JOBS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

clean:
	rm -rf $(VENV) $(MODELS) $(PEERS) $(BROWSER) .venv-peers-speed demo

# Without this stamp (an interrupted run) the environment is made afresh.
$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "srd-onnx needs Python 3.11 or newer; run: make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev$(if $(CHROMIUM),$(COMMA)browser)]'
	touch $(VENV)/.installed $@

$(MODELS)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(MODELS)
	$(MODELS)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,models]'
	touch $@

$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,peers]'
	touch $@

$(BROWSER)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(BROWSER)
	$(BROWSER)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,browser]'
	touch $@
