# `make run` and `make test` need Python 3.11 or newer; everything else is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Waiting threads must not keep the others from shared cores.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0

.PHONY: help install run check format docs test test-deployment clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV): some minutes, 2.3 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[app,dev]'
	touch $@

install: $(INSTALLED)  ## make .venv with the app and the development tools

run: $(INSTALLED)  ## one-shot FGL on the embedded digits, 5 clients
	$(BIN)/fgl run

check: $(INSTALLED)  ## format, lint (with the import rules), docstrings and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	find fgl_app -name '*.py' -exec $(BIN)/numpydoc lint {} +
	$(BIN)/mypy

format: $(INSTALLED)  ## format the code and mend what the linter can
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

# Material says at each build that MkDocs 2 will be another program.
docs: $(INSTALLED)  ## write docs/configuration.md anew and build the site, site/index.html
	$(BIN)/fgl config --markdown > docs/configuration.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: $(INSTALLED)  ## the tests that need nothing but this machine's cores
	$(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test-deployment: $(INSTALLED)  ## the tests of a federation of real processes, on the loopback interface
	$(BIN)/pytest tests/deployment

clean:  ## remove the environment, the site and the caches, not the results
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
