# `make demo` and `make test` set everything up in .venv; run again they start at once.
PYTHON ?= python3
DALI ?= cuda13
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(DALI)
TYPES := build/types/fovea

.PHONY: demo test test-slow test-gpu lint types docs check setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(DALI),dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/fovea demo --out demo-out

test: $(STAMP)
	$(BIN)/python -m pytest -q -m "not slow and not gpu"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m "slow and not gpu"

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A type checker does not follow the package map of an editable install, so it gets a tree of links.
types: $(STAMP)
	mkdir -p $(TYPES)
	for f in pipeline saliency training tools; do ln -sfn "$(CURDIR)/$$f" $(TYPES)/$$f; done
	MYPYPATH=build/types $(BIN)/mypy -p fovea

# The site goes to build/site; the API pages are read from the same tree of links.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	mkdir -p $(TYPES)
	for f in pipeline saliency training tools; do ln -sfn "$(CURDIR)/$$f" $(TYPES)/$$f; done
	$(BIN)/python docs/make_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml

check: lint types test

clean:
	rm -rf build demo-out .pytest_cache .mypy_cache .ruff_cache
