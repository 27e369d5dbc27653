VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
IMAGE ?= snn-sparsity
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full bench bench-gpu audit-bench gpu-proof docs report lint types format tensorboard audit-deps docker clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## Make the virtual environment and install (about 3 minutes)

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

demo: setup ## Train on handwritten digits with the default probes (about 5 minutes on two cores)
	$(BIN)/snn-sparsity fit --config demo

test: setup ## Run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not long"

test-full: setup ## Run the long tests that `make test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m long

bench: setup ## Time everything against a plain SpikingJelly loop, and put it into docs/performance.md (10 minutes on two cores)
	$(BIN)/python -m benchmarks.run --device cpu
	$(BIN)/python -m benchmarks.table benchmarks/results/cpu.json docs/performance.md

bench-gpu: setup ## The same on a GPU
	$(BIN)/python -m benchmarks.run --device cuda

gpu-proof: setup ## Show or refute on this GPU what is claimed of one (5 minutes): runs/gpu_proof/proof.html
	$(BIN)/python -m benchmarks.gpu_proof --out runs/gpu_proof

audit-bench: setup ## How often the audit is right, on networks of known truth (about 12 minutes of one core; goes on where it was)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.audit_bench

docs: setup ## Build the documentation as a site: build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

report: setup ## Put the kept runs beside the paper: results/report/report.html, and the parts of README and docs made of it
	$(BIN)/snn-sparsity report results --out results/report --into README.md docs/findings.md docs/defences.md
	for figure in causal defences; do test ! -f results/report/figures/$$figure.png || cp results/report/figures/$$figure.png docs/images/findings; done

lint: setup ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Check types
	$(BIN)/mypy

format: setup ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tensorboard: setup ## Show the curves of all runs, on this machine only
	$(BIN)/tensorboard --host localhost --logdir runs

audit-deps: ## Look up the versions in constraints.txt among known vulnerabilities (needs the network)
	test -x $(VENV)/audit/bin/pip-audit || ($(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit)
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

docker: ## Build the CUDA image
	docker build -t $(IMAGE) -f docker/Dockerfile .

clean: ## Remove the virtual environment and caches; runs stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find snn_sparsity tests -name __pycache__ -type d -prune -exec rm -rf {} +
