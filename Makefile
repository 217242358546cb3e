# make demo and make test need Python 3.11 or newer, make and pip's index; they do the set-up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
RUN ?= runs/mini
EXPERIMENT ?= runs/figure6-mini

.PHONY: help setup demo test check notebooks bench clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("nasface needs Python 3.11 or newer; give PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/.ready  ## the virtual environment, with what development needs

demo: setup  ## search, prune, fine-tune and evaluate on synthetic faces
	$(BIN)/nasface search --recipe demo --out $(DEMO)

test: setup  ## the tests
	$(BIN)/python -m pytest -n auto

check: setup  ## style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: setup  ## docs/notebooks with their outputs: make notebooks RUN=runs/mini EXPERIMENT=runs/figure6-mini
	rm -rf docs/notebooks
	export NASFACE_RUN=$(RUN) NASFACE_EXPERIMENT=$(EXPERIMENT); for name in factors pareto run figure6; do \
	  $(BIN)/jupytext --to ipynb --output - analysis/$$name.py | $(BIN)/jupyter nbconvert --stdin --execute \
	    --to markdown --output-dir docs/notebooks --output $$name || exit 1; done

bench: setup  ## the data pipeline against per-image code, a distillation step, a sweep
	$(BIN)/python benchmarks/data_pipeline.py
	$(BIN)/python benchmarks/distillation.py
	$(BIN)/python benchmarks/sweep.py

clean:  ## remove the environment, caches and runs
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
