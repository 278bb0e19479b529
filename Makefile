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

# MONAI Label clashes with this package's dependencies and has an environment of its own.
label-server: $(LABEL_READY)
	$(LABEL_BIN)/python -W ignore -m monai_medmerge.label $(BUNDLES:%=--bundle %) --studies $(STUDIES) --port $(PORT)

test-label: $(LABEL_READY)
	OMP_NUM_THREADS=1 $(LABEL_BIN)/python -m pytest tests/label monai_medmerge/label

clean:
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
