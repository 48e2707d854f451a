# Each target creates what it needs, .venv included, and is quick the second time: a stamp file in .venv
# says what is installed, and a newer pyproject.toml makes it stale.
#
#   make demo     the chat of examples/chat, on http://127.0.0.1:8000/ (LAYER=database: a gateway
#                 and two worker processes over SQLite; CHANNEL_REDIS_URL=redis://…: two gateways and
#                 two worker processes)
#   make test     the test suite, against the add-on installed from this tree
#                 (SHUFFLE=SEED: in another order)
#   make lint     ruff and mypy
#   make docs     the documentation as a site: build/docs/index.html
#   make mutants  small changes to the code, one at a time: the tests have to notice 95 % of them
#                 (NUMBER=100, SEED=9, MODULES=gateway/websocket.py)
#   make fuzz     random input for what reads messages of clients and of the site, other input each
#                 time; `make test` has a few (SECONDS=60 for each test)
#   make test-big bodies of 1 GB through gunicorn and nginx, uWSGI, mod_wsgi and uvicorn, where they are installed
#   make bench    the benchmarks, side by side with Channels 4 and other peers: 20 minutes at most, into
#                 benchmarks/results (QUICK=1: 3 minutes; README=1: also into README.md; WORKLOADS="echo http")
#   make bench-gate  20 seconds: no message calls 10 % more functions, or makes more round trips to Redis, than the
#                 stored figures
#   make bench-gate-time  under a minute: no workload needs 15 % more processor time than the stored figures
#   make chaos    what holds under faults, with real processes, Redis and PostgreSQL: one row for each
#                 promise; under an hour (make chaos-quick: under 7). ROWS chooses some; AGAIN=1 tries what did
#                 not hold once more
#
#   make patch       Django 1.10.8 with channels in it: a tree in build/, a patch file in dist/
#   make test-patch  Django's own suite on both trees, then ours, then a site, then the add-on with it
#   make test-1x     packages of 2016 to 2018 that require Channels 1.x, and three projects written as in 2016
#                 with a browser, with this tree in its place (ROWS=api, ROWS=projects)
#   make test-names  some of the tests under the second import name, django_channels, and a server with both it
#                 and Channels 4
#   make dist        wheels of the add-on and of asgi_redis, and the add-on's sdist, in dist/; in dist/alias,
#                 the name `channels` for the patched Django
#   make matrix      the wheel on every Django from 1.8 to 6.1: the tests, and a site (FULL=1: all tests in each row)
#
# These four keep in .cache what is slow to make: downloads, environments, Django's own result.
#
# PYTHON chooses the interpreter of .venv, PORT the port of the demo (8000), TESTS the tests to run:
#   make test TESTS="channels_tests.test_runserver" PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
TESTS ?=
BIN := $(VENV)/bin
# PYTHONWARNINGS hides what a build back end tells its own developers.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-big test-addon test-redis lint docs mutants fuzz bench bench-gate bench-gate-time chaos chaos-quick patch test-patch test-1x test-names dist matrix clean

help:
	@sed -n 's/^#   make /make /p' Makefile

# While something is installed, this file next to VENV has the number of the process that does it. If that
# process is gone, it was interrupted. VENV is then removed before make looks at it, and made anew. So is one
# without pip, whose making was interrupted.
UNFINISHED := $(VENV).unfinished
BEGIN = @echo $$PPID > $(UNFINISHED)
END = @rm -f $(UNFINISHED)
$(shell if ! kill -0 "$$(cat $(UNFINISHED) 2>/dev/null)" 2>/dev/null && { [ -f $(UNFINISHED) ] || \
	{ [ -f $(VENV)/pyvenv.cfg ] && [ ! -e $(BIN)/pip ]; }; }; then rm -rf $(VENV) $(UNFINISHED); fi)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.7 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 7) else 0)'
	$(BEGIN)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	$(END)

# One stamp for each extra; the add-on itself is installed editable, so that edits take effect at once.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BEGIN)
	$(PIP) install --quiet --editable '.[$*]'
	$(END)
	@touch $@

demo: $(VENV)/.installed-daphne $(if $(CHANNEL_REDIS_URL),$(VENV)/.installed-asgi-redis)
	$(BIN)/python examples/chat/demo.py

# With TESTS, only what it names; asgi_redis_tests.… are those of the Redis layer. Without it, the add-on's
# run in two processes, and CI runs those of the Redis layer at the same time (make -j2 -Otarget test): they
# wait for servers more than they compute.
TEST_RUNNER = $(BIN)/python $(1) $(if $(SHUFFLE),--shuffle $(SHUFFLE)) $(TESTS)

ifeq ($(TESTS),)
test: test-addon test-redis
else
test: $(if $(filter asgi_redis_tests%,$(TESTS)),test-redis,test-addon)
endif

test-addon: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	$(call TEST_RUNNER,tests/runtests_addon.py) $(if $(TESTS),,--processes 2)

test-redis: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	$(call TEST_RUNNER,asgi_redis/tests/run.py)

$(VENV)/.installed-asgi-redis: asgi_redis/pyproject.toml | $(BIN)/python
	$(BEGIN)
	$(PIP) install --quiet --editable './asgi_redis[test]'
	$(END)
	@touch $@

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python scripts/make_docs.py

# In copies of the tree, about 20 minutes on two cores.
mutants: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	$(BIN)/python scripts/mutants.py $(if $(NUMBER),--number $(NUMBER)) $(if $(SEED),--seed $(SEED)) $(MODULES)

fuzz: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	CHANNELS_FUZZ_SECONDS=$(or $(SECONDS),60) CHANNELS_TEST_TIMEOUT_SCALE=$$((2 + $(or $(SECONDS),60) / 60)) \
		$(BIN)/python tests/runtests_addon.py channels_tests.test_fuzz

test-big: $(VENV)/.installed-test
	CHANNELS_TEST_BIG_BODIES=1024 CHANNELS_TEST_TIMEOUT_SCALE=10 $(BIN)/python tests/runtests_addon.py channels_tests.test_wsgi_servers

# It makes a virtual environment for each contender, in .bench. The tests' helpers start PostgreSQL.
bench: $(VENV)/.installed-test
	$(BIN)/python benchmarks/suite.py $(if $(QUICK),--quick) $(if $(README),--readme) $(WORKLOADS)

# By calls of functions, which are the same on a busy machine; by processor time, which needs a quiet one.
bench-gate: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	$(BIN)/python benchmarks/calls.py

bench-gate-time: $(BIN)/python
	$(BIN)/python benchmarks/gate.py

# SOURCE is Django's sdist or unpacked tree (default: from PyPI).
patch:
	$(PYTHON) scripts/patch_django.py $(SOURCE)

test-patch: patch
	$(PYTHON) scripts/test_patch.py

test-1x:
	$(PYTHON) scripts/test_1x.py $(ROWS)

test-names: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	rm -rf build/second-name
	$(BIN)/python scripts/second_name.py build/second-name
	CHANNELS_TEST_PACKAGE=django_channels PYTHONPATH=build/second-name $(BIN)/python tests/runtests_addon.py \
		$(addprefix channels_tests.,test_routing test_generic test_worker test_memory_layer test_second_name test_habits)
	CHANNELS_TEST_TIMEOUT_SCALE=$${CHANNELS_TEST_TIMEOUT_SCALE:-2} $(PYTHON) scripts/test_channels_4.py build/second-name

dist:
	$(PYTHON) scripts/make_dist.py
	$(PYTHON) scripts/make_alias.py

# ROWS chooses rows by Django's version: make matrix ROWS=1.8,5.2. FULL=1 runs every test in every row.
matrix:
	$(PYTHON) scripts/matrix.py $(if $(FULL),--full) $(if $(ROWS),--rows $(ROWS)) $(TESTS)

chaos: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	$(BIN)/python chaos/run.py $(ROWS)

chaos-quick: $(VENV)/.installed-test $(VENV)/.installed-asgi-redis
	$(BIN)/python chaos/run.py --quick $(if $(AGAIN),--again) $(ROWS)

clean:
	rm -rf $(VENV) .bench build dist *.egg-info
