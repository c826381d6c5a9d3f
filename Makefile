# make demo: train, evaluate and film an agent.  make test: run the tests.  Either sets up the environment first, if needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread for each process: several processes share the machine, and OpenMP threads that wait at a barrier keep a core busy.
TEST_ENV := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench

help:  ## show this list
	@grep -E '^[a-z]+: .*##|^[a-z]+:  ##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14

setup: $(STAMP)  ## create .venv and install everything into it (PYTHON=python3.12 chooses the interpreter)
ifeq ($(origin PYTHON),command line)
	@test "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" || \
	  { echo "$(VENV) was made with $$($(BIN)/python -V), not with $(PYTHON): remove it (rm -rf $(VENV)) and run make setup again." >&2; exit 1; }
endif

$(STAMP): pyproject.toml scripts/install_torch.py
	@command -v $(PYTHON) >/dev/null || \
	  { echo "Steelyard needs Python 3.11 or newer, and there is no $(PYTHON): install it, or name yours, as in make setup PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit("Steelyard needs Python 3.11 or newer, and $(PYTHON) is %d.%d: name a newer one, as in make setup PYTHON=python3.12." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV): a few minutes the first time."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python scripts/install_torch.py
	@$(BIN)/python -m pip install --quiet --quiet --editable '.[dev]'
	@mkdir -p .links/steelyard && for folder in agents envs trainers; do ln -sfn ../../$$folder .links/steelyard/$$folder; done
	@touch $@

demo: setup  ## train SimbaV2 on cartpole-swingup (about five minutes), evaluate it, and leave a curve and a video
	@$(BIN)/python scripts/demo.py

test: setup  ## run the tests
	@$(TEST_ENV) $(BIN)/pytest -q --numprocesses auto --dist worksteal

check: setup  ## check format, lint, spelling and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/codespell
	@$(BIN)/pyright

bench: setup  ## measure speed on this machine (options in BENCH, as in make bench BENCH="--seconds 5 --peers")
	@$(BIN)/python scripts/bench.py $(BENCH)
