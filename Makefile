# Verbs: make run [FOLDER=...], make test [JOBS=3], make test-long, make test-servers [BROKER=redis|valkey|URL], make check, make bench, make bench-peers [FILES=40], make soak [MINUTES=60], make faults, make netns
PYTHON ?= python3
VENV ?= .venv
FOLDER ?= docs
MINUTES ?= 60
FILES ?= 40
BROKER ?= redis
# tests at once: they wait for their processes a good deal
JOBS ?= 3
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test test-long test-servers check bench bench-peers soak faults netns clean

run: $(VENV)/.all
	@$(BIN)/headwater up "$(FOLDER)"

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m "not long"

test-long: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m long

test-servers: $(VENV)/.test
	$(BIN)/python tests/on_servers.py --broker "$(BROKER)" --numprocesses 2 --dist worksteal

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m bench

bench-peers: $(VENV)/.bench
	$(BIN)/python -m bench.peers.run --files $(FILES)
	$(BIN)/python -m bench.plot docs/edits.svg

soak: $(VENV)/.test
	$(BIN)/python tests/faults/run.py --soak $(MINUTES) --out build/soak.jsonl

faults: $(VENV)/.test
	-$(BIN)/python tests/faults/run.py
	-$(BIN)/python tests/faults/poison.py --runs 1000 --out build/faults-poison.jsonl
	-$(BIN)/python tests/faults/model.py --runs 20 --out build/faults-model.jsonl
	$(BIN)/python tests/faults/run.py --summary docs/reliability.md

netns: $(VENV)/.test
	$(BIN)/python tests/netns/many_hosts.py
	$(BIN)/python tests/netns/many_hosts.py --summary docs/reliability.md

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/.all

$(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@ $(VENV)/.test $(VENV)/.all

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
