# Each target sets up .venv by itself, once, from constraints/cpu.txt. PYTHON names the interpreter to start from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DATA ?= phantom
OUTPUT ?= outputs/demo_$(DATA)
# Real, labelled data where it is at hand; tests that need it skip, with a reason, where it is not.
ifndef MEDMERGE_DATA
  ifneq ($(wildcard ../shared/data),)
    export MEDMERGE_DATA := $(abspath ../shared/data)
  endif
endif

.PHONY: demo demo-segmentation test lint bench clean

demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore examples/demo.py --data $(DATA) --output $(OUTPUT)

demo-segmentation: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore examples/demo_segmentation.py --data $(DATA) --output outputs/demo_segmentation_$(DATA)

# One thread a worker: threads that wait for each other on shared cores cost far more than they bring.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks.step_cost

clean:
	rm -rf $(VENV) outputs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torch first and alone: an unpinned resolution would take a build of several gigabytes.
$(READY): setup.cfg constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt torch setuptools
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt -e '.[dev]'
	touch $@
