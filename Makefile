# Two commands for a fresh machine: `make demo` and `make test`. Both create .venv if it is not there.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow docs bundles verify-bundles lint clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
# torch first and pinned: the constraint keeps whatever depends on it from pulling another build.
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest

# Two processes with one thread each: one is busy for an hour with the soak alone (DISINR_SOAK_SECONDS).
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" -n $(JOBS) --dist worksteal

# Not --quiet: it silences the warnings before --strict can count them.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bundles: $(STAMP)
	$(BIN)/python scripts/build_bundle.py --check
	$(BIN)/python scripts/build_bundle.py

# MODEL_ZOO=checkout runs the zoo's own script too; DISINR_SCHEMA=file is the metadata schema where there is no network.
verify-bundles: $(STAMP)
	$(BIN)/python scripts/verify_bundles.py

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo eval site build *.egg-info
