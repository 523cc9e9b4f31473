# On a fresh machine: `make demo`, `make test` (minutes) and `make test-all` (the rest). All set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
# A worker must not find our `datasets` folder before Hugging Face's package of that name.
export PYTHONSAFEPATH := 1

# What the GPU check runs on: nothing is installed for it, and a machine with a GPU brings its own torch.
GPU_PYTHON ?= $(if $(wildcard .venv/installed),$(BIN)/python,$(PYTHON))
OUT ?= gpu

.PHONY: demo test test-all lint types tests docs gpu coverage mutants clean

.venv/installed: setup.cfg pyproject.toml constraints.txt benchmark/__init__.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,docs]'
	touch $@

demo: .venv/installed
	$(BIN)/bench run experiments/demo.yaml --out demo/runs
	$(BIN)/bench report experiments/demo.yaml --out demo/runs --to demo/report --quiet

test: lint types tests

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

tests: .venv/installed
	$(BIN)/pytest --durations=10

# What needs root, services, real data, a browser or LaTeX, or is slow; what this machine lacks is skipped with the reason.
test-all: .venv/installed
	$(BIN)/pytest --durations=10 -m "full and not exhaustive"

.venv/quality: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[quality]'
	touch $@

# Which lines and branches the quick tier runs, processes that tests start included.
coverage: .venv/quality
	rm -rf .coverage
	mkdir .coverage
	$(BIN)/coverage run -m pytest $(COVERAGE_OPTIONS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

# Which changes of a line no test notices: MUTANTS_OPTIONS="--areas records --to mutants.json"
mutants: .venv/quality
	$(BIN)/python tests/mutants/mutants.py $(MUTANTS_OPTIONS)

docs: .venv/installed
	$(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

gpu:
	$(GPU_PYTHON) tests/gpu/check.py --out $(OUT) $(GPU_OPTIONS)

clean:
	rm -rf .venv demo site gpu .wheels .pytest_cache .mypy_cache .ruff_cache .coverage *.egg-info
