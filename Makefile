# The README's two commands are `make demo` and `make test`. Everything happens inside .venv.
#
#   make demo MINUTES=1          a shorter training
#   make demo PIP_ARGS="..."     extra arguments for pip, such as another index

PYTHON ?= python3
MINUTES ?= 3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Two workers of one thread each: the tests run many small models, which more threads only slow down.
PYTEST_WORKERS ?= 2

.PHONY: demo test lint style types chromium format bench docs clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo
	$(BIN)/ptbr-slm quickstart --out demo --minutes $(MINUTES)

# A worker takes whole files, in the order of tests/conftest.py.
test: $(VENV)/.test chromium
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

lint: style types

style: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy -p ptbr_slm -p ptbr_slm_export

chromium:
	@bash scripts/install_chromium.sh

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.demo
	@echo "Instale os concorrentes (benchmarks/requirements.txt) num ambiente à parte e rode:"
	@echo "  python benchmarks/inference.py --write && python benchmarks/training.py --write"
	@echo "Sem concorrentes a instalar: python benchmarks/learning.py, planner.py, loss_error.py, qk_norm.py, kill_loop.py"
	@echo "Na sua GPU: ptbr-slm bench train"

# site/index.html opens without a server.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Pronto: abra site/index.html no navegador."

clean:
	rm -rf $(VENV) demo site .mypy_cache .ruff_cache .pytest_cache

# A stamp a set of extras: installed again only when the project's needs change.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt -e ".[cpu,train,export,app]"
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt -e ".[cpu,train,export,app,serve,eval,lm-eval,scale,docs,dev]"
	@touch $@ $(VENV)/.demo $(VENV)/.docs  # all of theirs is in it

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt -e ".[docs]"
	@touch $@

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Erro: preciso de Python 3.11 ou mais novo. Use: make demo PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
