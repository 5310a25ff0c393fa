# `make` alone says what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo up setup test check format lock bench clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
KEEP ?=
MODELS ?=
PYTEST ?= -n 2 --dist loadfile
UPGRADE ?=
# those that are started by hand; gpu_hop is a part of dispatch
PROGRAMS := $(filter-out benchmarks/gpu_hop.py,$(shell grep -l '^if __name__' benchmarks/*.py))

help: ## this page
	@echo 'onnx-conveyor: train or download a model, export it, verify it, prove parity, publish it.'
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
	@echo
	@echo '  make demo KEEP=1                stays up at its end, until Ctrl-C'
	@echo '  make demo MODELS="a b"          runs other models of the catalogue'
	@echo '  make test PYTEST="-k parity"    runs other tests, or runs them otherwise'
	@echo '  make lock UPGRADE=1             takes the newest versions that pyproject.toml allows'

demo: setup ## the whole conveyor on this machine, with four real models
	@KEEP='$(KEEP)' $(BIN)/python -m deployments.demo $(MODELS)

up: setup ## server, databases, store, workers: until Ctrl-C
	@$(BIN)/python -m deployments.demo --up

setup: ## .venv from the lock; done once
	@$(PYTHON) requirements/install.py

test: setup check ## everything: check, then all tests
	@$(BIN)/python -m pytest $(PYTEST)

check: setup ## style, types, floors
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > .import-linter.log 2>&1 || { cat .import-linter.log; exit 1; }
	@echo 'check: style, types and floors are clean'

format: setup ## what the formatter and its fixes can mend
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench: setup ## the benchmarks, as ratios
	@for each in $(basename $(notdir $(PROGRAMS))); do \
	    echo "== $$each"; $(BIN)/python -m benchmarks.$$each || exit 1; \
	done

# Host names stay out of the locks: where packages come from is pip's own configuration.
lock: ## requirements/*.txt from pyproject.toml
	@uv=$$(mktemp -d) && trap 'rm -rf "$$uv"' EXIT \
	&& $(PYTHON) -m venv "$$uv" && "$$uv/bin/pip" -q --disable-pip-version-check install uv \
	&& for lock in 'dev --extra cpu --extra local --extra dev' 'cpu --extra cpu' 'gpu --extra gpu'; do \
	    set -- $$lock; name=$$1; shift; \
	    "$$uv/bin/uv" pip compile pyproject.toml "$$@" $(if $(UPGRADE),--upgrade) \
	        --python-version 3.11 --generate-hashes --no-header --quiet \
	        --no-emit-index-url --no-emit-find-links -o "requirements/$$name.txt" || exit 1; \
	    echo "requirements/$$name.txt"; \
	done

clean: ## caches, and what the demo has kept; not .venv
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .import-linter.log dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@if [ -d .conveyor ]; then \
	    flock --nonblock .conveyor/lock rm -rf .conveyor || { echo 'clean: a demo runs; .conveyor stays'; exit 1; }; \
	fi
