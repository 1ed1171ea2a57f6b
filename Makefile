# Each target sets up .venv by itself, and is quick when that is done.
#   make bench                          install, train and print the table of the suite `quick`
#   make test | make test-all | make lint | make docs | make clean
#   make test PYTHON=python3.12         another Python (3.11 or newer)
#   make bench CONSTRAINTS=gpu.txt      your own pins (say, a CUDA build of torch); CONSTRAINTS= for none
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
# Named after the constraints, so that other constraints mean another install.
BASE := $(VENV)/installed-with-$(or $(subst /,_,$(CONSTRAINTS)),nothing)
PIP := $(BIN)/python -m pip install $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
# Each worker begins with half of the tests, so that what a module prepares is mostly prepared once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: bench test test-all lint docs install clean

bench: $(BASE)
	$(BIN)/patchbench run quick

test: install
	$(PYTEST) $(ARGS)

test-all: install
	$(PYTEST) -m "slow or not slow" $(ARGS)

lint: install
	$(BIN)/ruff check
	$(BIN)/mypy

# Into build/site; a warning is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

install: $(BASE)-and-dev

$(BASE)-and-dev: $(BASE)
	$(PIP) -e '.[dev]'
	touch $@

$(BASE): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/installed-with-*
	$(PIP) -e .
	touch $@

# Results are data and stay; see the README for how to remove those.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
