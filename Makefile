# Every target sets up .venv by itself. The constraints pin the versions that CI tests; CONSTRAINTS= (empty) takes the newest that
# pyproject.toml allows.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
# Two processes, each with a Ray session of its own: to start a training is mostly to wait for imports, one after the other. Each
# takes a half of the tests, and the first to end takes over from the other; what many tests read is made once for both.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
# Of this package's lines that the tests' own processes run, not Ray's workers; below the floor in pyproject.toml the tests fail.
COVERAGE := --cov --cov-report=term
# It warns of MkDocs 2 otherwise, whatever the pins.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.DELETE_ON_ERROR:
.PHONY: demo ci test check slow nightly docs format clean

demo: $(VENV)/.installed
	$(BIN)/urgency-ray demo --config configs/demo.yaml --run-dir runs/demo

# What CI runs; one after the other, under `make -j` too: the linters take a minute, the tests the machine.
ci:
	$(MAKE) check
	$(MAKE) test
	$(MAKE) slow

test: $(VENV)/.installed
	$(PYTEST) $(COVERAGE)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MKDOCS) --site-dir $$(mktemp -d)

docs: $(VENV)/.installed
	$(MKDOCS)

slow: $(VENV)/.installed
	$(PYTEST) -m 'slow and not nightly'

nightly: $(VENV)/.installed
	$(BIN)/python -m pytest -m nightly

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) site runs/demo runs/demo-corpus

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed; {sys.executable} is {v.major}.{v.minor}: set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev]'
	@touch $@
