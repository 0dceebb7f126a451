# Each target sets up its own environment in .venv; two commands on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint docs bench clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"calbench needs Python 3.11 or newer, found {sys.version}"'
	$(PYTHON) -m venv $(VENV)

# torch comes first and pinned: a later, unpinned request would fetch gigabytes of CUDA libraries
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) torch
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(INSTALL) -e '.[test,lint]'
	touch $@

demo: $(VENV)/.run
	$(BIN)/calbench demo --force

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto  # a process a core, a thread each

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/evaluate.py
	$(BIN)/python benchmarks/multiclass.py
	$(BIN)/python benchmarks/temperature.py
	$(BIN)/python benchmarks/out_of_core.py
	$(BIN)/python benchmarks/interval_methods.py
	$(BIN)/python benchmarks/train.py --model small --size 96 --steps 20

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis calbench-demo
