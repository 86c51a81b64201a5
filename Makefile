# Slipway's commands; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MODEL ?= digits-vit
PYTHON ?= python3
STAND := $(PYTHON) -m local
DEV = $$($(STAND) env dev)/bin

.PHONY: help demo demo-gke up down status doctor refresh check test test-faults times serving-times lock docs model-report

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /make \1\t/' | expand -t 20
	@echo 'Settings: MODEL=NAME (default digits-vit), FORCE=1; those of the stand: $(STAND) --help'

demo: up  ## start the stand, refresh MODEL, and print where to look
	@$(STAND) refresh $(MODEL) $(if $(FORCE),--force)
	@$(STAND) look $(MODEL)

demo-gke:  ## the same on a GKE cluster that the run creates, against an emulator of Google's APIs
	@$(STAND) up --gke
	@$(STAND) refresh digits-vit-gke $(if $(FORCE),--force)
	@$(STAND) look digits-vit-gke

up:  ## start engine, registry, cluster and Airflow on this machine
	@$(STAND) up

down:  ## stop this checkout's parts, and the shared ones if no other checkout uses them
	@$(STAND) down

status:  ## print where everything is, as JSON (python3 -m local status prints a table)
	@$(STAND) status --json

doctor:  ## check each part of the stand
	@$(STAND) doctor

refresh:  ## run MODEL's DAG and follow it; FORCE=1 repeats every step
	@$(STAND) refresh $(MODEL) $(if $(FORCE),--force)

check:  ## run lint, types and the tests that need no stand
	@set -e; dev=$(DEV); \
	$$dev/ruff check . && $$dev/ruff format --check . && $$dev/mypy && PYTHONPATH=plugins $$dev/lint-imports && \
	$$dev/python -m pytest -q -m "not stand and not model and not faults"

# bash makes background commands ignore Ctrl-C; --default-signal makes pytest react to it.
test:  ## start the stand, then run lint, types and every test
	@stage() { local name=$$1 began=$$SECONDS; shift; echo "== $$name"; "$$@" || { echo "== $$name: FAILED after $$((SECONDS - began)) s"; exit 1; }; \
	    echo "== $$name: $$((SECONDS - began)) s"; }; \
	stage stand $(STAND) up; dev=$(DEV); \
	stage lint $$dev/ruff check .; \
	stage format $$dev/ruff format --check .; \
	stage types $$dev/mypy; \
	stage imports env PYTHONPATH=plugins $$dev/lint-imports; \
	log=$$(mktemp); failed=0; \
	env --default-signal=INT $$dev/python -m pytest -m "not faults and (alongside or not stand)" --durations=15 >$$log 2>&1 & other=$$!; \
	(stage "tests on the stand" $$dev/python -m pytest -m "stand and not (alongside or alone or faults)" --durations=15) || failed=1; \
	wait $$other || failed=1; echo "== the tests that ran at the same time"; cat $$log; rm -f $$log; \
	(stage "tests that need the stand alone" $$dev/python -m pytest -m "alone and not faults") || failed=1; exit $$failed

test-faults:  ## inject faults on the stand (about 35 minutes, no other checkout on it), and update docs/faults.md's table
	@$(STAND) up && $(DEV)/python tests/faults/suite.py

times:  ## measure runs task by task and update docs/times.md
	@$(DEV)/python -m benchmarks.refresh_times

serving-times:  ## measure the first request after a start, and marking bad images, and update docs/model.md
	@$(DEV)/python -m benchmarks.first_requests

docs:  ## generate the model file's reference from its schema
	@PYTHONPATH=plugins $(DEV)/python -m slipway.model.reference

model-report:  ## compare the exported graph with 🤗, and update the figures in docs/model.md
	@$$($(STAND) env model)/bin/python include/model/report.py docs/model.md

lock:  ## update the lock files from the short lists
	@set -e; uv=$$($(STAND) env uv)/bin/uv; export UV_CUSTOM_COMPILE_COMMAND="make lock"; \
	compile="$$uv pip compile --quiet --python-version 3.11 --generate-hashes"; \
	$$compile requirements.in -o requirements.txt; \
	$$compile requirements-dev.in -c requirements.txt -o requirements-dev.txt; \
	$$compile --override include/model/overrides.txt include/model/requirements.in -o include/model/requirements.txt; \
	$$compile --override include/model/overrides.txt --override local/serving/overrides.txt local/serving/requirements.in -o local/serving/requirements.txt
