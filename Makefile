# Each target sets up whatever it needs; a second call finds the stamps and starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check

.DEFAULT_GOAL := demo
.PHONY: demo test test-learning check format bench clean

demo: $(VENV)/.assets
	$(BIN)/palaestra demo

test: $(VENV)/.assets
	$(BIN)/python -m pytest -m "not learning" -n 2 --dist worksteal

test-learning: $(VENV)/.assets
	$(BIN)/python -m pytest -m learning

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed
	$(BIN)/palaestra bench

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("palaestra needs Python >= 3.11, but $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@echo "Setting up $(VENV): a few minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.assets: $(VENV)/.installed assets.py
	$(BIN)/palaestra fetch --all
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
