# Every target sets up what it needs in .venv, from nothing, and is quick the second time.
PYTHON ?= python3
BIN := .venv/bin
DATA ?= ../shared/data/held_in
# Holds held_in and held_out.
SUITE ?= ../shared/data
# Of load at 80% of the saturation.
MINUTES ?= 30
# The settings of the library that writes, and where its tasks are made.
WRITER := library/writer/sailplane.toml
TEXTS := benchmarks/.cache/writer
# Tests at one time; a module's stay together, with what they share.
WORKERS ?= 2
# Nothing is fetched from a model hub while testing.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.PHONY: help serve serve-text test test-all images faults load capacity check format library library-text bench bench-generation bench-peers quality quality-quick continual

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/.ready-serve  ## serve the demo library on http://127.0.0.1:8080
	@exec $(BIN)/sailplane serve

serve-text: .venv/.ready-serve  ## serve the library that writes text on http://127.0.0.1:8081
	@exec $(BIN)/sailplane serve --config $(WRITER)

test: .venv/.ready-dev  ## the fast tests
	$(OFFLINE) $(BIN)/pytest --numprocesses $(WORKERS) --dist loadscope

test-all: .venv/.ready-all  ## every test, slow ones included, one at a time: some measure
	$(OFFLINE) $(BIN)/pytest -m ""

check: .venv/.ready-dev  ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/.ready-dev  ## put the code in form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

library: .venv/.ready-dev  ## build library/minilm again: make library DATA=DIR
	$(OFFLINE) $(BIN)/sailplane train --tasks $(DATA)
	$(OFFLINE) $(BIN)/sailplane fit --tasks $(DATA) --calibrate
	$(OFFLINE) $(BIN)/sailplane evaluate --tasks $(DATA) --router base,oracle --sees choices --record
	$(OFFLINE) $(BIN)/sailplane evaluate --tasks $(DATA) --router base,oracle --sees reworded --record
	$(BIN)/sailplane card

library-text: .venv/.ready-dev  ## build library/writer again; trains what is not there
	$(OFFLINE) $(BIN)/python -m benchmarks.generation.train --family causal
	$(OFFLINE) $(BIN)/python -m benchmarks.generation.ship --tasks $(TEXTS)
	$(OFFLINE) $(BIN)/sailplane fit --config $(WRITER) --tasks $(TEXTS) --calibrate
	$(OFFLINE) $(BIN)/sailplane evaluate --config $(WRITER) --tasks $(TEXTS) --router base,oracle --record
	$(BIN)/sailplane card --config $(WRITER)

images: .venv/.ready-dev  ## pictures of the console in a browser; writes docs/images
	$(OFFLINE) $(BIN)/pytest tests/server/console -m "" --images docs/images

faults: .venv/.ready-all  ## every fault against real servers, half an hour; writes docs/faults.md
	$(OFFLINE) $(BIN)/pytest tests/faults -m "" --faults benchmarks/results/faults.json
	$(BIN)/python -m benchmarks.faults

bench: .venv/.ready-all  ## run the benchmarks; results in benchmarks/results
	$(OFFLINE) $(BIN)/python -m benchmarks

bench-generation: .venv/.ready-dev  ## the speed of writing text
	$(OFFLINE) $(BIN)/python -m benchmarks generation

bench-peers: .venv/.ready-dev  ## against infinity, PEFT and vLLM, each in an environment of its own
	$(OFFLINE) $(BIN)/python -m benchmarks peers

quality: .venv/.ready-dev  ## compare ways of routing; writes docs/quality.md: make quality SUITE=DIR
	$(OFFLINE) $(BIN)/sailplane train --tasks $(SUITE)/held_in --together multitask \
	  --library benchmarks/quality/experts
	$(OFFLINE) $(BIN)/python -m benchmarks.quality --data $(SUITE)

quality-quick: .venv/.ready-dev  ## a few minutes of the same, against margins that are kept
	$(OFFLINE) $(BIN)/python -m benchmarks.quality --data $(SUITE) --quick

continual: .venv/.ready-dev  ## compare ways of continual learning, for hours, resumable: make continual SUITE=DIR
	$(OFFLINE) $(BIN)/python -m benchmarks.continual --data $(SUITE)

load: .venv/.ready-load  ## 45 minutes of load, resumable; writes docs/load.md: make load MINUTES=2 is a try
	$(OFFLINE) $(BIN)/python -m benchmarks.load --minutes $(MINUTES)

capacity: .venv/.ready-dev  ## a quarter of an hour, on a quiet machine: how many replicas? writes docs/capacity.md
	$(OFFLINE) $(BIN)/python -m benchmarks.capacity

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Sailplane needs Python 3.11 or later; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

# One pip call: the range of torch must be in it when what depends on torch is chosen.
.venv/.ready-serve: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[demo,fast,console]'
	@touch $@

.venv/.ready-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[demo,dev]'
	@touch $@ .venv/.ready-serve

.venv/.ready-all: pyproject.toml | .venv/.ready-dev
	$(BIN)/python -m pip install --editable '.[ray]'
	@touch $@

.venv/.ready-load: pyproject.toml | .venv/.ready-serve
	$(BIN)/python -m pip install --editable '.[load]'
	@touch $@
