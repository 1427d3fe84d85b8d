# Every target sets up what it needs: `make demo` works on a bare machine with Python 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt
SOURCES := $(shell find benchmark tasks attributors leaderboard -name '*.py')
.PHONY: help setup check test test-slow fuzz kill audit demo bench board clean

help:  ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/dev  ## A virtual environment with everything, for development

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing AttriBoard into $(VENV) …"
	@$(PIP) torch && $(PIP) -e .
	@touch $@

$(VENV)/dev: pyproject.toml constraints.txt $(VENV)/run
	@$(PIP) -e '.[dev]'
	@touch $@

# mypy does not follow setuptools' editable finder; it sees an unpacked copy with the layout of the wheel.
build/typed: $(VENV)/dev $(SOURCES)
	@rm -rf build/typed build/lib && $(PIP) --no-deps --target build/typed . 2>/dev/null
	@touch $@

demo: $(VENV)/run  ## Eight attributors on the embedded digits: scores, intervals, a page
	@$(BIN)/attriboard demo --out demo

check: $(VENV)/dev build/typed  ## Style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p attriboard
	$(BIN)/python -m pytest -q tests/repository/test_imports.py

test: $(VENV)/dev  ## The test suite; ATTRIBOARD_DATA=DIR adds the tests on MNIST
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: $(VENV)/dev  ## The tests that take minutes
	$(BIN)/python -m pytest -q -m slow

fuzz: $(VENV)/dev  ## 10,000 hostile inputs for every parser
	cd tests && ../$(BIN)/python -m fuzzing --inputs 10000

kill: $(VENV)/dev  ## Kill every kind of work 50 times and compare what comes out
	cd tests && ../$(BIN)/python -m killing --kills 50

audit: $(VENV)/dev  ## Known vulnerabilities of the installed dependencies; what cannot be looked up fails
	@$(PIP) pip-audit
	@mkdir -p build && $(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > build/installed.txt
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip -r build/installed.txt

bench: $(VENV)/dev  ## Measure against peers, in ratios (needs ATTRIBOARD_DATA)
	$(BIN)/python -m bench

board: $(VENV)/run  ## The site, from the committed records
	$(BIN)/attriboard board build --out site $(BOARD_FLAGS)

clean:  ## Remove everything that was made here
	rm -rf $(VENV) build site demo attriboard-results
