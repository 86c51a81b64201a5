# Slipway's commands; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MODEL ?= digits-vit
PYTHON ?= python3
STAND := $(PYTHON) -m local
DEV = $$($(STAND) env dev)/bin
# Hundreds of processes import the same modules: none compiles them again, even where Python is told to keep no bytecode.
export PYTHONDONTWRITEBYTECODE =
# A fresh checkout uses the same cache of the libraries' types.
export MYPY_CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/slipway/mypy

.PHONY: help demo demo-gke demo-onnx up down status doctor refresh check test test-all test-slow test-faults times serving-times load-figures overlay-figures sweep-figures autoscale lock audit docs wheel model-report onnx-families bench bench-idle bench-model bench-runtimes onnx-precision

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

demo-onnx:  ## the digits on ONNX Runtime; the first time builds its server's image and the exporter's six gigabytes
	@$(STAND) up --onnx
	@$(STAND) refresh digits-onnx $(if $(FORCE),--force)
	@$(STAND) look digits-onnx

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

# The tests with hundreds of hostile inputs (test_hostile_*) run in make test: they take a sixth of the time.
check:  ## run lint, types and the tests that need no stand, without those of hostile input
	@set -e; dev=$(DEV); \
	$$dev/ruff check . && $$dev/ruff format --check . && $$dev/mypy && PYTHONPATH=plugins $$dev/lint-imports && \
	$$dev/python -m pytest -q -n 3 --dist loadfile --ignore-glob '*/test_hostile_*' -m "not (stand or model or faults or slow)"

# Six lanes at once, on two cores: tests on the stand mostly wait. --gke from the start: to add it later restarts Airflow.
# bash makes background commands ignore Ctrl-C; --default-signal makes pytest react to it.
test:  ## start the stand, then run lint, types and every test except the slow ones and the faults
	@stage() { local name=$$1 began=$$SECONDS; shift; echo "== $$name"; "$$@" || { echo "== $$name: FAILED after $$((SECONDS - began)) s"; exit 1; }; \
	    echo "== $$name: $$((SECONDS - began)) s"; }; \
	stage stand $(STAND) up --gke; dev=$(DEV); \
	stage lint $$dev/ruff check .; \
	stage format $$dev/ruff format --check .; \
	outputs=$$(mktemp -d); failed=0; others=(); rest="not (slow or faults)"; \
	tests() { local name=$$1 which=$$2; shift 2; \
	    stage "$$name" env --default-signal=INT $$dev/python -m pytest --durations=15 -m "($$which) and $$rest" "$$@"; }; \
	lane() { ("$$@") >"$$outputs/$${#others[@]}" 2>&1 & others+=($$!); }; \
	lane stage types $$dev/mypy; \
	stage imports env PYTHONPATH=plugins $$dev/lint-imports; \
	longest=tests/e2e/test_story.py; short="tests/e2e/test_workers.py tests/e2e/test_gate.py"; decisions=tests/e2e/test_decisions.py; \
	models="tests/include tests/conformance tests/local/serving"; \
	lane tests "tests of many runs in an Airflow of their own" "alongside" $$longest; \
	lane tests "tests with Google, and others with an Airflow of their own" "(google or alongside) and not alone" tests/e2e \
	    $$(printf -- '--ignore=%s ' $$longest $$short); \
	lane tests "tests of the exporter and of model servers" "alongside or not stand" $$models; \
	lane tests "tests that need no Airflow" "alongside or not stand" --ignore=tests/e2e $$(printf -- '--ignore=%s ' $$models); \
	lane tests "tests of decisions in the stand's Airflow" "stand" $$decisions; \
	(tests "tests in the stand's Airflow" "stand and not (alongside or alone or google)" tests/docs tests/e2e tests/local \
	    --ignore=$$decisions) || failed=1; \
	(tests "tests of tasks and gates in an Airflow of their own" "alongside" $$short) || failed=1; \
	for other in "$${others[@]}"; do wait $$other || failed=1; done; cat $$outputs/*; rm -r $$outputs; \
	(tests "tests that need the stand alone" "alone" tests/e2e tests/local) || failed=1; exit $$failed

test-slow:  ## run the tests that take minutes and seldom fail, on the stand
	@$(STAND) up --gke --onnx && $(DEV)/python -m pytest --durations=15 -m "slow and not faults"

test-all:  ## run make test, the slow tests and the faults, one after another
	@failed=0; for part in test test-slow test-faults; do \
	    began=$$SECONDS; echo "== make $$part"; $(MAKE) --no-print-directory $$part && how=passed || { how=FAILED; failed=1; }; \
	    ended+="== make $$part: $$how after $$((SECONDS - began)) s"$$'\n'; done; printf '%s' "$$ended"; exit $$failed

test-faults:  ## inject faults on the stand (takes long, no other checkout on it), and update docs/faults.md's table
	@$(STAND) up --gke && $(DEV)/python tests/faults/suite.py

times:  ## measure runs task by task and update docs/times.md
	@$(DEV)/python -m benchmarks.refresh_times

serving-times:  ## measure the first request after a start, and marking bad images, and update docs/model.md
	@$(DEV)/python -m benchmarks.first_requests

load-figures:  ## load digits-vit at rising rates, and update the figures and the picture in docs/load.md
	@$(DEV)/python -m benchmarks.load_figures

overlay-figures:  ## measure threads on 0.8 CPUs, and what an image costs in a batch, and update docs/overlays.md
	@$(DEV)/python -m benchmarks.thread_cost && PYTHONPATH=include/model:. $$($(STAND) env model)/bin/python -m benchmarks.batch_cost

sweep-figures:  ## sweep variants of a release on the stand, and update the table and the picture in docs/load.md
	@$(STAND) up && $(DEV)/python -m benchmarks.sweep_figures

autoscale:  ## load a release until it has three pods, and update docs/autoscaler.json and docs/autoscaler.png
	@$(STAND) up && SLIPWAY_TIMELINE=docs $(DEV)/python -m pytest -m slow tests/e2e/test_autoscaler.py -k three

docs:  ## generate the model file's reference from its schema
	@PYTHONPATH=plugins $(DEV)/python -m slipway.model.reference

model-report:  ## compare the exported graph with 🤗, and update the figures in docs/model.md
	@$$($(STAND) env model)/bin/python include/model/report.py docs/model.md

onnx-families:  ## export a tiny model of every family for ONNX Runtime, and update the table in docs/runtimes.md
	@PYTHONPATH=include/model:include/onnx_server $$($(STAND) env onnx)/bin/python include/onnx_model/families.py docs/runtimes.md

bench:  ## compare a refresh with the same checks in a shell script, and with the seed's bare steps; update docs/benchmarks.md
	@PYTHONPATH=plugins $(DEV)/python -m benchmarks.refresh

bench-idle:  ## measure what an idle Airflow costs with 1, 10 and 100 model files, and update docs/benchmarks.md
	@$(STAND) up && $(DEV)/python -m benchmarks.idle_load

bench-model:  ## compare the served graph's speed with the seed's export, and update docs/model.md
	@PYTHONPATH=include/model:. $$($(STAND) env model)/bin/python -m benchmarks.graph_speed

bench-runtimes:  ## compare TensorFlow and ONNX Runtime, in process and through the servers, and update docs/runtimes.md
	@$(DEV)/python -m benchmarks.runtimes

onnx-precision:  ## measure each export.precision on ONNX Runtime, and update docs/runtimes.md
	@$(DEV)/python -m benchmarks.precision

wheel:  ## build the package into dist/ (docs/install.md)
	@$(DEV)/python -m hatchling build -t wheel

lock:  ## update the lock files from the short lists
	@set -e; uv=$$($(STAND) env uv)/bin/uv; export UV_CUSTOM_COMPILE_COMMAND="make lock"; \
	compile="$$uv pip compile --quiet --python-version 3.11 --generate-hashes"; \
	for tool in uv audit; do $$compile local/builds/$$tool.in -o local/builds/$$tool.txt; done; \
	$$compile requirements.in -o requirements.txt; \
	$$compile requirements-dev.in -c requirements.txt -o requirements-dev.txt; \
	$$compile include/load/requirements.in -o include/load/requirements.txt; \
	$$compile local/azurite/node.in -o local/azurite/node.txt; \
	$$compile include/onnx_server/requirements.in -o include/onnx_server/requirements.txt; \
	$$compile benchmarks/openvino.in -c include/onnx_server/requirements.txt -o benchmarks/openvino.txt; \
	$$compile --override include/model/overrides.txt include/model/requirements.in -o include/model/requirements.txt; \
	$$compile --override include/onnx_model/overrides.txt include/onnx_model/requirements.in -o include/onnx_model/requirements.txt; \
	$$compile --override include/model/overrides.txt --override local/serving/overrides.txt local/serving/requirements.in -o local/serving/requirements.txt

audit:  ## check the lock files for known vulnerabilities; fails if a package was skipped
	@$(STAND) audit
