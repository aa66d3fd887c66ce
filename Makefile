# Each target installs what it needs. Requires only make and Python 3.11 or newer.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs

.PHONY: demo test lint docs golden bench fuzz attack chaos soak clean

demo: $(STAMP)
	$(BIN)/esl-apps demo

test: lint
	$(BIN)/python -m pytest -n $(or $(WORKERS),6) $(PYTEST_ARGS)

lint: $(STAMP) docs
	$(BIN)/ruff check esl_apps tests benchmarks tools docs
	$(BIN)/ruff format --check -q esl_apps tests benchmarks tools docs
	$(BIN)/mypy
	$(BIN)/python tools/style.py --quiet

golden: $(STAMP)
	GOLDEN=write $(BIN)/python -m pytest -q tests/golden

# The site, in build/docs/index.html. A warning is an error; docs/_ext checks links, file names and test names.
docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build -q -W -n -j auto -d build/doctrees docs build/docs

bench: $(STAMP)
	$(BIN)/pip install -q -e '.[bench]'
	$(BIN)/python -m benchmarks

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600)

attack: $(STAMP)
	$(BIN)/python -m tests.attack --frames $(or $(FRAMES),1000000) --requests $(or $(REQUESTS),100000)

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1) $(CHAOS_ARGS)

soak: $(STAMP)
	$(BIN)/python -m tests.chaos.soak --calls $(or $(CALLS),100000)

$(DOCS_STAMP): setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[docs]'
	touch $@

$(STAMP): setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	-$(BIN)/pip install -q --disable-pip-version-check -e '.[phones]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
