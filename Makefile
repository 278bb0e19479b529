# Each target sets up .venv by itself, once, from constraints/cpu.txt. PYTHON names the interpreter to start from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LABEL_VENV := .venv-label
LABEL_BIN := $(LABEL_VENV)/bin
LABEL_READY := $(LABEL_VENV)/ready
BUNDLES ?= bundles/medmerge_segmentation
STUDIES ?= outputs/studies
PORT ?= 8000
DATA ?= phantom
OUTPUT ?= outputs/demo_$(DATA)
# Real, labelled data where it is at hand; tests that need it skip, with a reason, where it is not.
ifndef MEDMERGE_DATA
  ifneq ($(wildcard ../shared/data),)
    export MEDMERGE_DATA := $(abspath ../shared/data)
  endif
endif

.PHONY: help demo demo-segmentation test lint docs bench label-server test-label clean
.DEFAULT_GOAL := help

help:  ## what there is to run
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/' | expand -t 20

demo: $(READY)  ## merge real networks for a new task and show what each way reaches (DATA=phantom)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore examples/demo.py --data $(DATA) --output $(OUTPUT)

demo-segmentation: $(READY)  ## the same for label maps of volumes
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore examples/demo_segmentation.py --data $(DATA) --output outputs/demo_segmentation_$(DATA)

# One thread a worker: threads that wait for each other on shared cores cost far more than they bring.
test: $(READY)  ## every test, doctests included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## the site: pages, tutorials and the reference, in outputs/site
	$(BIN)/python -W ignore -m sphinx -W --keep-going -q -b html -d outputs/site_trees docs outputs/site

bench: $(READY)  ## what a step of coefficient learning costs
	$(BIN)/python -m benchmarks.step_cost

# MONAI Label clashes with this package's dependencies and has an environment of its own.
label-server: $(LABEL_READY)  ## serve bundles with MONAI Label (BUNDLES, STUDIES, PORT)
	$(LABEL_BIN)/python -W ignore -m monai_medmerge.label $(BUNDLES:%=--bundle %) --studies $(STUDIES) --port $(PORT)

test-label: $(LABEL_READY)  ## tests of MONAI Label's server, in its own environment
	OMP_NUM_THREADS=1 $(LABEL_BIN)/python -m pytest tests/label monai_medmerge/label

clean:  ## remove environments, caches and outputs
	rm -rf $(VENV) $(LABEL_VENV) outputs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torch first and alone: an unpinned resolution would take a build of several gigabytes.
$(READY): setup.cfg constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt torch setuptools
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt -e '.[dev]'
	touch $@

# --no-deps: what MONAI Label asks for beyond constraints/label.txt cannot be installed beside numpy 2 and pydicom 3.
$(LABEL_READY): setup.cfg constraints/cpu.txt constraints/label.txt
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_BIN)/python -m pip install --quiet -c constraints/cpu.txt torch setuptools
	$(LABEL_BIN)/python -m pip install --quiet -c constraints/cpu.txt -r constraints/label.txt -e '.[dicom,tensorboard]'
	$(LABEL_BIN)/python -m pip install --quiet --no-deps monailabel==0.8.5
	$(LABEL_BIN)/python -m monai_medmerge.label.stand_ins
	touch $@
