# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test test-fast lint types imports docs tests style install release-check clean

## Search on real weights and real data, and write a report.
demo: $(INSTALLED)
	$(BIN)/python examples/prepare_demo.py --output demo --only efficientnet-lite0 --only mnist-200
	$(BIN)/hf-biotune tune --model demo/efficientnet-lite0 --dataset demo/mnist-200 \
		--image-size 48 --budget 24 --output-dir demo/tuned

## Everything that must hold: lint, types, architecture, documentation, tests.
test: lint types imports docs tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

## The documentation, in `site/`; a link that leads nowhere is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# The examples in docstrings first: they take seconds. Then a process for each core, with one thread
# each: the models are too small for more.
tests: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --doctest-modules hf_biotune
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

## The tests that take seconds.
test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

## Build wheel and sdist, install each into an empty environment, and try it.
release-check: $(INSTALLED)
	$(BIN)/python scripts/smoke_test_wheel.py

## Format the code.
style: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

# torch and torchvision first and together: a later torch would take several GB more.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(INSTALLED)

clean:
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
