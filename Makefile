.DEFAULT_GOAL := help
.PHONY: help env demo test test-unit lint format lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_METHODS := local fedvtc fedvtc_plus
DEMO := outputs/demo-$(shell date +%Y%m%d-%H%M%S)

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP)  ## Build .venv with the locked dependencies

demo: env  ## Three methods on the bundled digits, and a table (no download, minutes on a CPU)
	@for method in $(DEMO_METHODS); do \
	    $(BIN)/fedvtc run conf/experiment/digits.yaml conf/method/$$method.yaml run.output_dir=$(DEMO) || exit; \
	done
	$(BIN)/fedvtc list runs $(DEMO)

test: test-unit  ## All tests, the ones with Ray clusters too
	$(BIN)/python -m pytest -m integration -n 3 --dist loadfile --no-loadscope-reorder

test-unit: env  ## The fast tests only, side by side
	$(BIN)/python -m pytest -m "not integration" -n auto --maxprocesses 4 --dist loadfile

lint: env  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env  ## Mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Resolve the newest allowed dependencies into requirements.lock
	@$(find_uv); $$uv pip compile --quiet --upgrade --universal --no-header --group dev pyproject.toml \
	    --output-file requirements.lock

clean:  ## Remove the environment and all caches; outputs and data stay
	rm -rf $(VENV) .uv dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -exec rm -rf {} +

$(STAMP): pyproject.toml requirements.lock
	@$(find_uv); set -e; \
	if ! test -x $(BIN)/python; then \
	    rm -rf $(VENV); \
	    $$uv venv --quiet --no-python-downloads --python '>=3.11' $(VENV) || \
	        { echo "make env: needs Python 3.11 or newer. Install one, then run make env again." >&2; exit 1; }; \
	fi; \
	$$uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock; \
	$$uv pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps -e .
	@touch $@

# Sets the shell's $uv: the one on the PATH if it works, else a private one, which no system Python refuses.
define find_uv
uv=uv; if ! uv --version >/dev/null 2>&1; then \
    uv=.uv/bin/uv; test -x $$uv || python3 -m pip install --quiet --target .uv uv || \
        { echo "make env: cannot get uv. Install it, then run make env again." >&2; exit 1; }; \
fi
endef
