# `make run` and `make test` need Python 3.11 or newer; everything else is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLD_VENV := .venv-flower
OLD_FLOWER = $(shell sed -n 's/^dependencies = \["flwr>=\([0-9.]*\)".*/\1/p' pyproject.toml)
# Waiting threads must not keep the others from shared cores.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0

.PHONY: help install run check format docs test test-flower test-deployment dist clean

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
docs: $(INSTALLED)  ## write docs/configuration.md and build the site, site/index.html
	$(BIN)/fgl config --markdown > docs/configuration.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: $(INSTALLED)  ## the tests that need nothing but this machine's cores
	$(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# Its Flower comes before that of .venv, which has everything else.
$(OLD_VENV)/.installed: $(INSTALLED)
	$(BIN)/python -m venv --clear $(OLD_VENV)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> $$($(OLD_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/venv.pth
	$(OLD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'flwr[simulation]==$(OLD_FLOWER).*'
	$(OLD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

test-flower: $(OLD_VENV)/.installed  ## the strategies and a run with the oldest Flower that pyproject.toml allows
	$(OLD_VENV)/bin/python -m pytest tests/strategies tests/messages
	$(OLD_VENV)/bin/fgl run images-per-class=20 synthetic-epochs=1 num-inference-steps=2 output-dir=$(OLD_VENV)/outputs

test-deployment: $(INSTALLED)  ## the tests of a federation of real processes, on the loopback interface
	$(BIN)/pytest tests/deployment

dist: $(INSTALLED)  ## the wheel and the source distribution, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

clean:  ## remove the environments, the site, the distributions and the caches, not the results
	rm -rf $(VENV) $(OLD_VENV) site dist .pytest_cache .mypy_cache .ruff_cache
