# Thin wrappers over uv; `make help` prints the list. Everything needed is installed on first use.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS := 1
export PYTHONPATH := $(CURDIR)

UV := .tools/bin/uv
PRESETS_ENV := UV_PROJECT_ENVIRONMENT=$(CURDIR)/presets/.venv
PYTEST := .venv/bin/python -m pytest

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z_-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: sync presets-env ## One Workspace from kubectl apply to a /chat answer, on this machine
	@.venv/bin/kaito demo

.PHONY: up
up: sync presets-env ## The same control plane, kept running to play with
	@.venv/bin/kaito up

.PHONY: test
test: sync presets-env envtest ## Every test: unit, contract (also on a real kube-apiserver), presets
	@$(PYTEST) -q
	@presets/.venv/bin/python -m pytest -q presets/test

.PHONY: check
check: sync ## What CI enforces besides tests: lint, format, types, layers, drift
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/pyright
	@.venv/bin/lint-imports
	@.venv/bin/python hack/generate.py --check
	@.venv/bin/python hack/size.py

.PHONY: generate
generate: sync ## Write the CRDs, RBAC and docs that are generated from code
	@.venv/bin/python hack/generate.py

.PHONY: bench
bench: sync envtest ## Measure; prints JSON and tables (see docs/benchmarks.md)
	@.venv/bin/python -m hack.bench

.PHONY: format
format: sync ## Rewrite the code in the house format
	@.venv/bin/ruff check --fix-only -q . && .venv/bin/ruff format -q .

.PHONY: envtest
envtest: sync ## Build the real kube-apiserver and etcd once (Go needed; about five minutes)
	@.venv/bin/python -m hack.envtest.binaries || true

.PHONY: sync presets-env
sync: .venv/.synced ## Install the development environment into .venv
presets-env: presets/.venv/.synced ## Install the serving stack (torch, transformers) into presets/.venv

$(UV):
	@echo "installing uv into .tools (a download of 25 MiB)"
	@python3 -m venv .tools || { echo "python3 lacks its venv module; on Debian: apt-get install python3-venv"; rm -rf .tools; exit 1; }
	@.tools/bin/pip --disable-pip-version-check -q install 'uv>=0.8'

.venv/.synced: pyproject.toml uv.lock presets/pyproject.toml | $(UV)
	@echo "installing Kaito and its tools into .venv (downloads about 130 MiB)"
	@$(UV) sync --frozen -q
	@touch $@
