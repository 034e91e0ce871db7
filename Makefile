.DEFAULT_GOAL := help
.PHONY: help env demo test test-unit lint docs format lock wheel clean

# Else every process of the tests compiles each test and each module of fedvtc anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Three processes on two cores, because the tests of clusters wait at times. Each file stays in one process, and the
# files with clusters come first. The slowest tests are listed: a unit test takes under 0.25 s or is marked slow.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=20
DEMO_METHODS := local fedvtc fedvtc_plus
DEMO := outputs/demo-$(shell date +%Y%m%d-%H%M%S)

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP)  ## Build .venv with the locked dependencies

demo: env  ## Run three methods on the bundled digits and print a table (no download, three minutes on two cores)
	@for method in $(DEMO_METHODS); do \
	    $(BIN)/fedvtc run conf/experiment/digits.yaml conf/method/$$method.yaml run.output_dir=$(DEMO) || exit; \
	done
	$(BIN)/fedvtc list runs $(DEMO)

test: env  ## Run all tests, including those that start Ray clusters
	$(PYTEST)

test-unit: env  ## Run the fast tests only
	$(PYTEST) -m "not integration and not slow"

lint: env  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# With -E -a every page is built again, because an unchanged page would not repeat its warnings.
docs: env  ## Build the documentation site in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -E -a -q -b html -c docs -d docs/_build/doctrees . docs/_build/html

format: env  ## Fix style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Write the newest allowed dependencies to requirements.lock
	@$(find_uv); $$uv pip compile --quiet --upgrade --universal --no-header --group dev pyproject.toml \
	    --output-file requirements.lock

wheel:  ## Build the package in dist/
	@$(find_uv); $$uv build --quiet --wheel --out-dir dist

clean:  ## Remove the environment, the site and all caches; keep outputs and data
	rm -rf $(VENV) .uv dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -exec rm -rf {} +

$(STAMP): pyproject.toml requirements.lock
	@$(find_uv); set -e; \
	if ! test -x $(BIN)/python; then \
	    rm -rf $(VENV); \
	    $$uv venv --quiet --no-python-downloads --python '>=3.11' $(VENV) || \
	        { echo "make env: no Python 3.11 or newer found. Install Python 3.11, then run make env again." >&2; exit 1; }; \
	fi; \
	$$uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock; \
	$$uv pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps -e .
	@touch $@

# Sets $uv in the shell: the uv on the PATH if that works, else a copy in .uv, because a system Python may refuse installs.
define find_uv
uv=uv; if ! uv --version >/dev/null 2>&1; then \
    uv=.uv/bin/uv; test -x $$uv || python3 -m pip install --quiet --target .uv uv || \
        { echo "make env: cannot install uv. Install uv, then run make env again." >&2; exit 1; }; \
fi
endef
