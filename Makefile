.DEFAULT_GOAL := help
SHELL := bash
PY := .venv/bin/python
export PYTHON

.PHONY: run lock help
run: ## start Magpie on this machine
	@scripts/venv run
	@$(PY) run.py

lock: ## resolve setup.cfg anew into the two lock files
	@scripts/venv dev
	@scripts/lock

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16
