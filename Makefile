# `make` alone lists the targets. Two commands do everything on a fresh machine with Python 3.11 to 3.13 and make:
#   make demo    the main job, simulated mail and model, no account anywhere (ARGS=--until-idle ends by itself)
#   make test    the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE := $(shell command -v npm 2>/dev/null)
CODE := function_app.py shared local tests evals benchmarks capacity

.DEFAULT_GOAL := help
.PHONY: help demo test check docs fmt lock audit infra chaos certify eval bench capacity clean

help: ## List the targets
	@echo "make TARGET [ARGS=\"...\"]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-12s%s\n", $$1, $$2 }'

demo: $(VENV)/.demo ## Show the main job, everything simulated; ARGS=--until-idle ends by itself
	@$(BIN)/python -m local demo $(ARGS)

test: $(VENV)/.test .node/.installed ## Run the tests; ARGS="-x tests/test_pipeline.py" runs some of them
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.test ## Check style, spelling and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy --strict $(CODE) scripts/shape.py
	$(BIN)/python scripts/shape.py

docs: $(VENV)/.demo ## Write what is generated: settings, example settings, profiles' schema, list of packages
	@$(BIN)/python -m local docs $(ARGS)

fmt: $(VENV)/.test ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Each lock is limited to the versions of the one before it: what is tested is what is deployed. The Azure CLI's is by itself.
# Versions stay as they are where the ranges allow it; ARGS=--upgrade takes the newest. Dependabot reads the options from the locks.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version=3.11 --generate-hashes $(ARGS)
lock: $(VENV)/.test ## Pin requirements.in with hashes (six locks); ARGS=--upgrade takes newer versions
	$(LOCK) requirements.in --output-file requirements.txt
	$(LOCK) local/requirements.in --constraint requirements.txt --output-file local/requirements.txt
	$(LOCK) tests/requirements.in --constraint local/requirements.txt --output-file tests/requirements.txt
	$(LOCK) evals/requirements.in --constraint tests/requirements.txt --output-file evals/requirements.txt
	$(LOCK) tests/azure_cli/requirements.in --output-file tests/azure_cli/requirements.txt
	$(LOCK) tests/worker/requirements.in --constraint tests/requirements.txt --output-file tests/worker/requirements.txt

audit: $(VENV)/.test ## Look for secrets and for known vulnerabilities in what is installed
	PYTHON=$(BIN)/python scripts/audit.sh

# With CI=true a tool that is missing is a failure.
infra: export CI = true
infra: $(VENV)/.test .node/.installed .azure-cli/.installed .worker/.installed ## Check what would be deployed; needs the Bicep compiler (BICEP)
	$(BIN)/python -m pytest tests/test_infra.py tests/test_queries.py tests/test_commands.py tests/test_deploy_scripts.py \
	  tests/test_package.py tests/test_worker.py

# The tests run a short form of all four.
chaos: $(VENV)/.test ## Try all faults and attacks: days; an hour with ARGS="--pairs 1"; ARGS=load floods it
	@$(BIN)/python -m tests.chaos $(ARGS)

certify: $(VENV)/.test ## Try hostile mail on a model that obeys it: 8 minutes; EVAL_DATA_DIR has the public sets, docs/attack-report.md the result
	@$(BIN)/python -m tests.certify $(ARGS)

eval: $(VENV)/.demo ## Measure answers, the model is MODEL_ENDPOINT or simulated; ARGS="--set knowledge", ARGS=scorecard
	@$(BIN)/python -m evals $(ARGS)

bench: $(VENV)/.test $(if $(NODE),.node/.installed) ## Measure speed, calls, tokens and growth: 25 minutes; ARGS=--quick three
	@$(BIN)/python -m benchmarks $(ARGS)

capacity: $(VENV)/.demo ## Print costs and limits on paper (seconds); ARGS=--write updates the documentation
	@$(BIN)/python -m capacity $(ARGS)

clean: ## Remove what was installed and stored here
	rm -rf $(VENV) .node .azure-cli .worker .data .package release.zip

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11 to 3.13 is needed, and $(PYTHON) is not: set PYTHON=python3.12, say."; exit 1; }
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(BIN)/python requirements.txt local/requirements.txt
	@echo "Installing what the agent and its simulators need (a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r local/requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.demo tests/requirements.txt
	@echo "Installing what the tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

# Only its parser is used, by tests/test_commands.py. `make test` leaves it out for its size; `make infra` and .ci/run have it.
.azure-cli/.installed: $(VENV)/.test tests/azure_cli/requirements.txt
	@echo "Installing the Azure CLI in an environment of its own (370 MB, half a minute)"
	@$(BIN)/python -m venv --clear --without-pip .azure-cli
	@$(BIN)/uv pip install --quiet --python .azure-cli/bin/python -r tests/azure_cli/requirements.txt
	@touch $@

# Microsoft's library worker wants Python 3.13, whatever the rest runs on. uv finds the Pythons of pyenv too, and brings one of its own
# where it may.
.worker/.installed: $(VENV)/.test tests/worker/requirements.txt
	@echo "Installing Microsoft's library worker, with Python 3.13, in an environment of its own (half a minute)"
	@PATH="$$PATH:$$(echo $$HOME/.pyenv/versions/3.13*/bin | tr ' ' ':')" $(BIN)/uv venv --quiet --clear --python 3.13 .worker
	@$(BIN)/uv pip install --quiet --python .worker/bin/python -r tests/worker/requirements.txt
	@touch $@

# Node is optional, except in CI: with it the ledger is tested on Azurite and the work queue over AMQP.
.node/.installed: tests/node/package.json
	@echo "Installing Azurite, an AMQP peer and the parser of Kusto (a few minutes)"
	@mkdir -p .node && cp tests/node/package.json .node/
	@if [ -n "$(NODE)" ]; then npm install --prefix .node --no-audit --no-fund --loglevel=error --fetch-retries=1 \
	  --fetch-retry-mintimeout=1000 >.node/npm.log 2>&1; else echo "npm is not on the PATH" >.node/npm.log; false; fi \
	  && touch $@ || { echo "npm could not install them:"; sed -n '1,4s/^/  /p' .node/npm.log; \
	  echo "Going on without the parts that need Node. With CI=true this is a failure."; test "$$CI" != true; }
