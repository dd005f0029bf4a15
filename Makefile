# One command per habit; CI calls the same ones. `make demo` and `make test` need nothing but python3 (>= 3.11) and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= demo-run
# Where Debian keeps the servers that some tests start.
export PATH := $(PATH):/usr/sbin

.PHONY: demo test test-all test-bare check bench clean

$(VENV)/.made-%: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

demo: $(VENV)/.made-demo
	$(BIN)/prunedge demo --out $(RUN)

test: $(VENV)/.made-dev
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: $(VENV)/.made-zoo
	$(BIN)/python -m pytest -q -n 2

# The device's tests without the programs and packages that a bare machine lacks.
test-bare: $(VENV)/.made-dev
	$(BIN)/python -m tests.bare.run -n 2 -m "not slow"

check: $(VENV)/.made-dev
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# DATA: a folder or manifest of pictures (without it, the demo's). ONLY: ranking,surgery,... Takes hours; let nothing else run meanwhile.
bench: $(VENV)/.made-bench
	$(BIN)/python benchmarks/run.py $(DATA) $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf $(VENV) demo-run .pytest_cache .ruff_cache .mypy_cache .hypothesis dist
