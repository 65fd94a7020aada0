# make lab | demo | test | test-all | notebooks | teacher | clean. Each works alone: it makes .venv and installs what it needs first.
# Every recipe prints its plain commands; on Windows and Colab, type those (see README.md).
PYTHON ?= python3
BIN := .venv/bin
LAB_FLAGS ?=
export TQDM_MININTERVAL ?= 0.5

.PHONY: lab demo test test-all notebooks teacher clean
.DEFAULT_GOAL := lab

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minivit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@rm -rf .venv; if command -v uv >/dev/null 2>&1; then set -x; \
	  uv venv --quiet --python $(PYTHON) .venv && uv pip install --quiet --python $(BIN)/python -r requirements.txt -e .; \
	else set -x; \
	  $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .; \
	fi
	@touch $@

lab: .venv/installed
	$(BIN)/python -m jupyterlab notebooks/00_start_here.ipynb $(LAB_FLAGS)

demo: .venv/installed
	$(BIN)/python -m minivit demo

test: .venv/installed  # a process for each core, four at most; a chapter stays with one
	$(BIN)/python -m ruff check .
	TQDM_DISABLE=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal -m "not slow" tests
	TQDM_DISABLE=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --nbval notebooks

test-all: test
	TQDM_DISABLE=1 $(BIN)/python -m pytest -q -m slow tests

notebooks: .venv/installed  # execute every chapter in place, from a clean kernel
	TQDM_DISABLE=1 $(BIN)/python -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

teacher: .venv/installed  # starter 0, solution 100, every planted bug found, hostile files get a zero
	OMP_NUM_THREADS=1 $(BIN)/python homework/teacher/check.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info demo.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
