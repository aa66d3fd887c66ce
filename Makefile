# Each target does its own set-up: Python 3.11 or newer and make are all that it takes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint golden bench fuzz attack chaos soak clean

demo: $(STAMP)
	$(BIN)/esl-apps demo

test: lint
	$(BIN)/python -m pytest -n $(or $(WORKERS),6) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check esl_apps tests benchmarks tools
	$(BIN)/ruff format --check -q esl_apps tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/python tools/style.py --quiet

golden: $(STAMP)
	GOLDEN=write $(BIN)/python -m pytest -q tests/golden

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

$(STAMP): setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	-$(BIN)/pip install -q --disable-pip-version-check -e '.[phones]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
