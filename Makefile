# Everything a contributor runs; CI runs the same. Python 3.11 or newer is all the machine needs.
.DEFAULT_GOAL := help
SHELL := bash
PY := .venv/bin/python
export PYTHON
# Bytecode is kept, whatever the shell says: without it every start compiles a thousand modules, and takes more than twice as long.
unexport PYTHONDONTWRITEBYTECODE
# Processes that run tests side by side, and more arguments for pytest, the benchmark or uv: make test ARGS="-k gateway"
WORKERS ?= 3
ARGS ?=

.PHONY: help run cluster dev test faults cover check bench fmt types proto lock clean web venv

help: ## this list
	@echo 'Magpie IM: make run starts it, make check test proves it. 一条 make run 即可启动,make test 运行全部测试。'
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: ## start Magpie on this machine (embedded PostgreSQL and Valkey, data in .data)
	@scripts/venv run
	@scripts/web || echo 'magpie: going on without the web app; it needs the npm registry once' >&2
	@$(PY) run.py $(ARGS)

dev: venv ## the same, built and started again whenever a source, template, migration or setting changes
	@scripts/web
	@trap 'kill 0' EXIT; scripts/web npm run --silent watch & .venv/bin/watchfiles --sigint-timeout 20 '$(PY) run.py $(ARGS)' app config migrations run.py frontend/dist

test: venv web ## all tests; ARGS="-k gateway" for some of them
	@scripts/browser
	@scripts/nginx
	@scripts/web npm run --silent test
	@$(PY) -m local.kafka
	@$(PY) -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

cluster: venv ## a small cluster on this machine: api, gateways, consumers; ARGS="--broker kafka" for Kafka, --help for the rest
	@scripts/web
	@$(PY) -m local $(ARGS)

faults: venv ## kill, cut and empty things many times; BROKER=kafka or redis_streams for a cluster, REGISTRY=redis or etcd for its gateways, FAULTS_SEED=7 repeats a run, ARGS="-k cut" picks
	@FAULTS=full $(PY) -m pytest $(or $(if $(BROKER),tests/faults/test_cluster.py),$(if $(REGISTRY),tests/faults/test_gateways.py),tests/faults --ignore tests/faults/test_cluster.py --ignore tests/faults/test_gateways.py) -o log_cli=true -o log_cli_level=INFO $(ARGS)
	@$(if $(BROKER)$(REGISTRY),FAULTS=full $(PY) -m tests.faults.results)

cover: venv web ## all tests, and which lines of app they run
	@$(PY) -m pytest -n $(WORKERS) --dist loadgroup --cov --cov-report term --cov-report html $(ARGS)

check: venv web ## types, import rules, style, migrations, generated code: under a minute
	@scripts/check

bench: venv ## load generator; ARGS="--help" for its scenarios
	@$(PY) -m bench $(ARGS)

fmt: venv web ## format the code and sort its imports
	@.venv/bin/ruff check --quiet --fix-only .
	@.venv/bin/ruff format .
	@scripts/web npm run --silent fmt

types: venv web ## generate the web app's types from the OpenAPI document
	@$(PY) run.py openapi >frontend/openapi.json && scripts/web npm run --silent types

proto: venv ## generate the protobuf modules
	@scripts/proto

lock: venv ## resolve setup.cfg into the two lock files; ARGS=--upgrade for the newest versions
	@scripts/lock $(ARGS)
	@scripts/venv dev

clean: ## remove the virtual environment and all caches; never the data in .data
	rm -rf .venv frontend/node_modules frontend/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov build dist *.egg-info
	find . -name __pycache__ -type d -not -path './node_modules/*' -prune -exec rm -rf {} +

web: venv
	@scripts/web

venv:
	@scripts/venv dev
