# Thin wrappers over uv; `make help` prints the list. Everything needed is installed on first use.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS := 1
UV := .tools/bin/uv
RUN := $(UV) run --frozen --no-sync

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z_-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@echo "installing uv into .tools (20 MiB)"
	@python3 -m venv .tools 2>/dev/null || { echo "python3 has no venv module; install it (Debian: apt-get install python3-venv)"; exit 1; }
	@.tools/bin/pip --disable-pip-version-check -q install 'uv>=0.8'

.venv/.synced: $(UV) pyproject.toml uv.lock
	@echo "installing Kaito's dependencies into .venv (about 90 MiB of downloads)"
	@$(UV) sync --frozen -q
	@touch $@

.PHONY: sync
sync: .venv/.synced ## Install the development environment into .venv
