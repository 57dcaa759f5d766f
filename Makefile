# One command for each thing a newcomer wants. `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo experiments test slow gpu lab app docs export clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## make .venv with everything in it (once, some minutes, about 7 GB)

demo: $(READY)  ## adapt from a game to a city on sample streets, and show the difference
	@$(BIN)/adaptseg demo

experiments: $(READY)  ## the report's five experiments on sample streets: table and both figures (20 minutes)
	@$(BIN)/adaptseg experiments

test: $(READY)  ## all that CI checks: notebooks clean and exported, run, tests
	@PATH="$(abspath $(BIN)):$$PATH" tests/run

slow: $(READY)  ## the tests that take minutes each
	@$(BIN)/python -m pytest tests -q -m slow

gpu: $(READY)  ## on a machine with a card: tests and benchmarks of what needs one, into gpu-report.md (an hour)
	@$(BIN)/python tests/gpu.py

lab: $(READY)  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab nbs

app: $(READY)  ## the dashboards in a browser: results, training, segments, datasets, video (http://localhost:8866)
	@$(BIN)/adaptseg app

docs: $(READY)  ## the documentation site, in _docs/ (a minute, no network needed)
	@$(BIN)/python nbs/_site/build.py
	@echo "open _docs/index.html"

export: $(READY)  ## write adaptseg/*.py from the notebooks, clean the notebooks, copy README.md to nbs/index.ipynb
	@$(BIN)/nbdev_export
	@$(BIN)/python nbs/_site/home.py
	@$(BIN)/nbdev_clean

clean:  ## remove .venv, caches, the site and build files; data/ and runs/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache _docs _proc
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +
	@echo "data/ (datasets, samples) and runs/ (results) were kept: remove them yourself"

# The stamp is written last: what was interrupted is done again, what is done is not.
$(READY): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and "$(PYTHON) is Python %d.%d, adaptseg needs 3.10 or newer: make install PYTHON=python3.11" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))'; then pins="-c constraints.txt"; \
	else pins=; echo "constraints.txt needs Python 3.11.5: taking the newest versions that fit"; fi; \
	set -x; $(BIN)/python -m pip install -e '.[dev]' $$pins
	@touch $@
