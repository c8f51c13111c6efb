# `make demo` and `make test` need only Python 3.11 or 3.12, make and a network.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# The tests start thousands of Pythons: each would compile all of ours anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint types check lab-net bench clean

help:            ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY)  ## make .venv with everything in it

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if v in ((3, 11), (3, 12)) else f"lab needs Python 3.11 or 3.12, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@# pip would compile with one core, and the tests of all packages too. A few files are not for this Python: no harm.
	@$(BIN)/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

demo: $(READY)   ## run the main job and show its table
	@$(BIN)/lab submit parity --wait --results
	@echo
	@echo 'Every candidate must pass and every known-bad mutant must fail, or the run itself fails. Next:'
	@echo "  .venv/bin/lab results --sql \"select candidate, max(max_rel) from parity where role = 'candidate' group by 1\""
	@echo '  .venv/bin/lab fetch 1 -o demo-out     # the figure, verified on the way out'
	@echo '  .venv/bin/lab submit command --wait -- python3 -c "print(6 * 7)"'
	@echo '  .venv/bin/lab status'

test: $(READY)   ## all tests but the long ones
	@$(BIN)/python -m tests.side_by_side

test-long: $(READY)  ## the long ones
	$(BIN)/python -m pytest -m long

lint: $(READY)   ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

check: lint      ## what CI runs: style, types and tests
	@log=$$(mktemp); code=0; $(MAKE) --no-print-directory types >$$log 2>&1 & types=$$!; \
	  $(MAKE) --no-print-directory test || code=$$?; \
	  wait $$types || code=$$?; cat $$log; rm -f $$log; exit $$code

DIR ?= lab-net
lab-net: $(READY) ## three unequal test lanes to play with, until Ctrl-C (needs root; DIR=folder for their cluster.yaml)
	@$(BIN)/python -m tests.netlab.play '$(DIR)'

bench: $(READY)  ## ratios against named peers, on this machine
	$(BIN)/python -m benchmarks.spine
	$(BIN)/python -m benchmarks.dispatch
	$(BIN)/python -m benchmarks.results
	$(BIN)/python -m benchmarks.top
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.makespan

clean:           ## remove what setup made (never a home)
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
