# Every target installs what is missing first; the work happens in .venv.
PYTHON ?= python3
PORT ?= 8501
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup app test bench demo demo-evaluation demo-evidence lint

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python: got {v.major}.{v.minor}; expected 3.11 or newer; fix: make PYTHON=python3.11 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

app: setup
	$(BIN)/python -m workbench app --port $(PORT)

test: setup lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	# Where no jaxtyping shapes stand in quotes, an undefined name is one.
	$(BIN)/ruff check --select F821 app.py workbench
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

demo: setup
	$(BIN)/python -m workbench.demo.build
	$(BIN)/python -m workbench.demo.bundle

demo-evaluation: setup
	$(BIN)/python -m workbench.demo.evaluate --model demo --out build/demo-evaluation.json

demo-evidence: setup
	$(BIN)/python -m workbench.demo.evidence
