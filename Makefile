# Pagemill's commands. Each makes the environment it needs first (tools/bootstrap): a Python from 3.11 to 3.13 and
# a package registry are enough, and root is needed by `make test` alone, for Debian packages that are missing.

.DEFAULT_GOAL := help
.PHONY: help demo demo-search test test-fast lint verify generate format bench bench-operator chaos requirements clean
.PHONY: cluster-up cluster-down cluster-status test-cluster chaos-cluster chart-check chart-readme
MAKEFLAGS += --no-print-directory
export ORT_DISABLE_TELEMETRY = 1

# Two test processes: engines are heavy, and more of them would wait for memory, not for cores.
TEST_PROCESSES ?= 2
in_test_env = py=$$(tools/bootstrap test) && export PATH="$$(dirname "$$py"):$$PATH" &&

help: ## Say what can be made (this)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Read real pages into an embedded S3 server and show the result
	@py=$$(tools/bootstrap demo) && exec "$$py" tools/demo.py

demo-search: ## Find real photographs by a sentence and by a picture
	@py=$$(tools/bootstrap demo-search) && exec "$$py" tools/demo_search.py

# Kubernetes is built first, from cold in a quarter of an hour: no test's time limit allows for that.
test: ## Run what every change must pass: lint, verify, tests, those on a real Kubernetes included
	@$(in_test_env) "$$py" tools/system_packages.py
	@$(MAKE) lint verify
	@$(in_test_env) PYTHONPATH=tools "$$py" -m testcluster build >/dev/null && \
		exec "$$py" -m pytest -q -n $(TEST_PROCESSES) --dist worksteal

test-fast: ## The same without Kubernetes and the chart, for work in between
	@$(in_test_env) exec "$$py" -m pytest -q -n $(TEST_PROCESSES) --dist worksteal --ignore=tests/cluster --ignore=tests/chart

lint: ## Check style, types and the arrows between packages
	@$(in_test_env) ruff check . && ruff format --check . && mypy && lint-imports --no-logo

verify: ## Compare the generated files with the code; write nothing
	@$(in_test_env) "$$py" tools/generate.py --check

generate: ## Write the generated files
	@$(in_test_env) "$$py" tools/generate.py

format: ## Format the code and mend what the linter can
	@$(in_test_env) ruff check --fix . ; ruff format .

bench: ## Measure Pagemill against bare loops and the reference tools
	@$(in_test_env) exec "$$py" -m benchmarks

bench-operator: ## Measure the operator with a thousand jobs on a real control plane (40 minutes)
	@$(in_test_env) export PYTHONPATH=tools && "$$py" -m testcluster build >/dev/null && exec "$$py" -m benchmarks operator

chaos: ## Run the fault tests in their long form
	@$(in_test_env) exec "$$py" -m pytest -q -n $(TEST_PROCESSES) --dist worksteal --chaos=long --timeout=0 tests/chaos

chaos-cluster: ## Kill the operator a hundred times during a job on a real node, and write the report (root)
	@$(in_test_env) exec "$$py" -m pytest -q --chaos=long --timeout=0 tests/cluster/test_faults_operator.py

# A Kubernetes for tests, see docs/guide/test-cluster.md. LEVEL=node needs root; the other level does not.
CLUSTER ?= pagemill
LEVEL ?= control-plane
testcluster = $(in_test_env) exec env PYTHONPATH=tools "$$py" -m testcluster --name $(CLUSTER)

cluster-up: ## Start a real Kubernetes on this machine (LEVEL=node: with a real node, as root)
	@$(testcluster) up --level $(LEVEL)

cluster-down: ## Stop it and remove all of it
	@$(testcluster) down

cluster-status: ## Say how it is, part by part
	@$(testcluster) status

test-cluster: ## Run only the tests that need a Kubernetes: on one of their own, or on the one of KUBECONFIG
	@$(in_test_env) PYTHONPATH=tools "$$py" -m testcluster build >/dev/null && \
		exec "$$py" -m pytest -q -n $(TEST_PROCESSES) --dist worksteal tests/cluster tests/chart

chart-check: ## Judge the Helm chart with every program there is for it, but on no cluster
	@$(in_test_env) exec "$$py" -m pytest -q tests/chart

chart-readme: ## Write the chart's README.md
	@$(in_test_env) PYTHONPATH=tools "$$py" -m charttools

requirements: ## Compile requirements/*.txt anew (UPGRADE=1: to the newest versions allowed)
	@$(in_test_env) exec "$$py" tools/compile_requirements.py $(if $(UPGRADE),--upgrade)

clean: ## Delete environments, caches and the demo's output
	rm -rf .venv .venv-demo .venv-demo-search .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis demo build dist
	find core operator worker cli tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
