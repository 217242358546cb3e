# make demo and make test need Python 3.11 or newer, make and pip's index; they do the set-up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
RUN ?= runs/demo
EXPERIMENT ?= runs/figure6-mini
# container images like to set it; without bytecode, every process compiles torch anew, which takes seconds
unexport PYTHONDONTWRITEBYTECODE

# what torch from PyPI brings along on Linux for CUDA: its wheel pins these itself, and a CPU build has none of them
CUDA := triton cuda-bindings cuda-toolkit nvidia-cublas nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
  nvidia-nvshmem-cu13

.PHONY: help setup lock demo test test-fast web-runtime test-faults test-nni check docs linkcheck notebooks bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml constraints.txt requirements-dev.lock
	$(PYTHON) -c 'import sys; sys.exit("nasface needs Python 3.11 or newer; give PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-compile --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

setup: $(VENV)/.ready  ## the virtual environment, with what development needs

lock:  ## requirements-dev.lock, made again from pyproject.toml and the torch of constraints.txt
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	printf '%s\n' $(CUDA) > build/lock/cuda.txt
	build/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --extra dev \
	  --constraint constraints.txt --no-emit-package torch --excludes build/lock/cuda.txt \
	  --custom-compile-command 'make lock' --output-file requirements-dev.lock pyproject.toml

demo: setup  ## search, prune, fine-tune, sweep and report on synthetic faces: ends with a page to look at
	$(BIN)/nasface search --recipe demo --out $(DEMO)
	$(BIN)/nasface sweep-thresholds $(DEMO) --count 5
	$(BIN)/nasface report $(DEMO)
	@echo "open $(DEMO)/report.html in a browser"

# worksteal keeps the tests of a file together, so that what they share is made once
test: setup  ## the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: setup  ## the tests without the slow ones and without hostile inputs, for the inner loop
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" --ignore tests/hostile

web-runtime: setup  ## ONNX Runtime Web for the tests of exported web pages, to build/onnxruntime-web (needs npm)
	version=$$($(BIN)/python -c 'from nasface.formats.web.runtime import VERSION; print(VERSION)') && \
	  mkdir -p build/onnxruntime-web && cd build/onnxruntime-web && npm pack --silent onnxruntime-web@$$version && \
	  tar -xzf onnxruntime-web-$$version.tgz

test-faults: setup  ## 120 kills at steps, writes and random moments; every command must end with the same bits
	$(BIN)/python -m tests.faults --kills 120

test-nni:  ## the tests of the searchers of nasface[nni], in an environment of its own: build/nni
	$(PYTHON) -m venv --clear build/nni
	build/nni/bin/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[nni]' hypothesis pytest
	build/nni/bin/python -m pip check
	build/nni/bin/python -m pytest tests/unit/test_search_nni.py

check: setup  ## style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup  ## the documentation, to build/docs/index.html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -d build/doctrees docs build/docs

linkcheck: setup  ## whether the links to other sites still lead somewhere (needs the internet)
	$(BIN)/python -m sphinx -q -b linkcheck -d build/doctrees docs build/linkcheck

notebooks: setup  ## docs/notebooks with their outputs: make notebooks RUN=runs/demo EXPERIMENT=runs/figure6-mini
	rm -rf docs/notebooks
	export NASFACE_RUN=$(RUN) NASFACE_EXPERIMENT=$(EXPERIMENT); for name in factors pareto run figure6; do \
	  $(BIN)/jupytext --to ipynb --output - analysis/$$name.py | $(BIN)/jupyter nbconvert --stdin --execute \
	    --to markdown --output-dir docs/notebooks --output $$name || exit 1; done

bench: setup  ## the data pipeline against per-image code, a distillation step, a sweep, face detectors, memory, several processes and workers, exports
	$(BIN)/python benchmarks/data_pipeline.py
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/distillation.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/detectors.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/processes.py
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/deploy.py

clean:  ## remove the environment, caches and runs
	rm -rf $(VENV) runs build dist docs/reference/generated .pytest_cache .mypy_cache .ruff_cache
