# Needs make and Python 3.11 or newer; every target builds .venv first (tools/setup_env.py; nothing to do costs no time).
#   PYTHON=python3.12   the Python to build .venv with
#   TORCH=cpu|cuda      the torch build; left out, nvidia-smi decides
#   WHEELS=folder       install from this folder of wheels, without a network
#   ARGS=...            passed on: make lab ARGS=--no-browser, make test ARGS="-m 'not slow'"
PYTHON ?= python3

.PHONY: help env lab test evidence clean

help:
	@echo "make lab        open the notebooks in JupyterLab   (on a server: make lab ARGS=--no-browser)"
	@echo "make test       all tests: fast, slow, every notebook at smoke, the browser"
	@echo "make evidence   the long runs behind data/results (hours on a CPU; goes on where it stopped)"
	@echo "make env        only build or refresh .venv"
	@echo "make clean      remove .venv, build/ and caches; your runs in data/local stay"

env:
	@$(PYTHON) tools/setup_env.py

lab: env
	.venv/bin/disentkit lab $(ARGS)

test: env
	.venv/bin/python -m pytest tests $(ARGS)

evidence: env
	.venv/bin/python tests/evidence/figures.py
	.venv/bin/python tests/evidence/run.py $(ARGS)
	.venv/bin/python tests/evidence/mix.py
	.venv/bin/python tests/evidence/mixnmatch.py
	.venv/bin/python tests/evidence/gzsnet.py
	.venv/bin/python tests/evidence/directions.py

clean:
	rm -rf .venv build .pytest_cache .hypothesis .ruff_cache disentkit.egg-info
