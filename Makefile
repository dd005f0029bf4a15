# One command per habit; CI calls the same ones. `make demo` and `make test` need nothing but python3 (>= 3.11) and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= demo-run
# Where Debian keeps the servers that some tests start.
export PATH := $(PATH):/usr/sbin

.PHONY: demo test test-all test-bare test-versions coverage check docs bench clean

$(VENV)/.made-%: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

demo: $(VENV)/.made-demo
	$(BIN)/prunedge demo --out $(RUN)

test: $(VENV)/.made-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(VENV)/.made-zoo
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# The device's tests without the programs and packages that a bare machine lacks.
test-bare: $(VENV)/.made-dev
	$(BIN)/python -m tests.bare.run -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# Python 3.11 to 3.13 and the oldest versions that pyproject.toml allows, each in an environment of its own, with a quick part of the tests.
# ONLY: 3.11,oldest,... Each environment needs some 6 GB while it is tried.
test-versions: $(VENV)/.made-versions
	$(BIN)/python -m tests.versions.run $(if $(ONLY),--only $(ONLY))

# Which lines and branches the tests reach, in the processes that they start as well. Takes half as long again as `make test`.
coverage: $(VENV)/.made-dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(TESTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

check: $(VENV)/.made-dev
	$(BIN)/ruff check src tests examples docs
	$(BIN)/ruff format --check src tests examples docs/*.py
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, into site/: open site/index.html. Every warning is an error (with --quiet none would be). The start page's images: docs/make_images.py.
docs: $(VENV)/.made-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# DATA: a folder or manifest of images (without it, the demo's). ONLY: ranking,surgery,... Takes hours; let nothing else run meanwhile.
bench: $(VENV)/.made-bench
	$(BIN)/python benchmarks/run.py $(DATA) $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf $(VENV) demo-run site .coverage* .versions .pytest_cache .ruff_cache .mypy_cache .hypothesis dist
