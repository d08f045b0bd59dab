# Every target makes the virtual environment by itself: `make demo` and `make test` are the first commands of a fresh clone.
# VENV=folder puts it elsewhere; PYTHON=interpreter chooses the Python it is made from.
# CASES="help demo" limits `make bench`; SECONDS=3600 is how long `make fuzz` runs, FUZZ="--seed 7" its options.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Compiling, which takes one core, is most of the time: a process a core.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
DEMO_PROMPT ?= an elephant on a sky blue background

.PHONY: demo test test-quick lint bench faults fuzz parallel python313

demo: $(STAMP)
	$(BIN)/opensora generate "$(DEMO_PROMPT)" --contact_sheet --save_img_path samples/demo

test: $(STAMP)
	$(PYTEST)

test-quick: $(STAMP)
	$(PYTEST) -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(CASES)

# An environment without MindSpore, in which the tests run the wheel.
python313:
	python3.13 -m venv .venv-3.13
	.venv-3.13/bin/python -m pip install --quiet --disable-pip-version-check .
	.venv-3.13/bin/python -m pip uninstall --quiet --yes opensora

parallel: $(STAMP)
	$(BIN)/python -m pytest tests/parallel/full_*.py

SECONDS ?= 60
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(FUZZ)

faults: $(STAMP)
	$(BIN)/python -m tests.train.faults

# MindSpore has wheels up to Python 3.12, PyAV 18 from 3.11.
$(STAMP): pyproject.toml
	@python="$(PYTHON)"; \
	for candidate in python3.11 python3 python3.12; do \
	  [ -n "$$python" ] && break; \
	  $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && python=$$candidate; \
	done; \
	[ -n "$$python" ] || { echo "Python 3.11 or 3.12 is needed: install python3.11, or name one with PYTHON=" >&2; exit 2; }; \
	echo "$$python -m venv $(VENV)" && "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
