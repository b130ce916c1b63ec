# Two commands do everything on a fresh machine with Python 3.11+ and make:
#   make demo    the main job, simulated mail and model, no account anywhere (ARGS=--until-idle ends by itself)
#   make test    the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE := $(shell command -v npm 2>/dev/null)

.PHONY: demo test check audit infra chaos eval bench clean

demo: $(VENV)/.demo
	@$(BIN)/python -m local demo $(ARGS)

test: $(VENV)/.test $(if $(NODE),.node/.installed)
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict function_app.py shared local tests evals benchmarks capacity

# Looks for secrets in the tree and for known vulnerabilities in what is installed.
audit: $(VENV)/.test
	PYTHON=$(BIN)/python scripts/audit.sh

# Builds and checks what would be deployed; needs the Bicep compiler (BICEP, or `bicep` on the PATH).
infra: $(VENV)/.test
	$(BIN)/python -m pytest tests/test_infra.py tests/test_deploy_scripts.py

# Every single fault and every pair of faults at every outside call, every state of the protocol, every attack;
# the tests run a short form. ARGS=load kills a real process in a flood of mail.
chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos $(ARGS)

# Labelled emails through the whole pipeline, with the model of MODEL_ENDPOINT or else a simulated one.
eval: $(VENV)/.demo
	@$(BIN)/python -m evals $(ARGS)
# Throughput, calls and tokens, cold start, bill, growth, and other agents on the same work; ARGS=--quick in two minutes.
bench: $(VENV)/.test $(if $(NODE),.node/.installed)
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .node .data

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

# Node is optional: with it the ledger is tested on Azurite and the work queue over AMQP.
.node/.installed: tests/node/package.json
	@echo "Installing Azurite and an AMQP peer"
	@mkdir -p .node && cp tests/node/package.json .node/ && npm install --prefix .node --silent --no-audit --no-fund
	@touch $@
