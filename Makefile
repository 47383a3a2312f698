# What can be done here. Each goal does all of its own set-up; only Rust, Go, Python 3 and Node must be there, and root
# or sudo the first time.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where Cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Containerfile says why musl.
MUSL := $(shell uname -m)-unknown-linux-musl

.PHONY: help
help: ## Lists the goals
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: parts ## Installs what demo and tests need (Redis, Python with Celery), and builds the binaries
	@$(BUILD) --bins

.PHONY: demo
demo: setup ## Takes a real Celery fleet through a deployment, without worker-drain and with it
	@$(TARGET)/debug/demo

.PHONY: tour
tour: setup ## Starts what the README's tour walks around in, until Ctrl-C
	@$(TARGET)/debug/tour

# Says how many threads each test program has.
RUNNER := --config 'target."cfg(unix)".runner="tests/setup/run.sh"'

.PHONY: test
test: parts kube promtool lint static ## Runs every test, and says how many there were
	@$(BUILD) --all-targets
	@code=0; cargo test $(RUNNER) --workspace --no-fail-fast 2>&1 | tee $(TARGET)/test-output || code=$$?; \
	awk -f tests/setup/count.awk $(TARGET)/test-output || code=$$?; exit $$code

.PHONY: test-matrix
test-matrix: parts ## Runs every Celery from 5.3 on, with every pool, over Redis and RabbitMQ (a part of test)
	@cargo test --workspace --test celery_matrix

.PHONY: static
static: parts ## Builds the image's static binary for its test, unoptimised
	@rustup target list --installed | grep -qx '$(MUSL)' || rustup --quiet target add '$(MUSL)' || \
	  { echo "the static binary needs Rust's target $(MUSL): rustup target add $(MUSL)" >&2; exit 1; }
	@CC_$(subst -,_,$(MUSL))=musl-gcc cargo build --quiet --locked --profile static --package worker-drain --no-default-features --target '$(MUSL)'

.PHONY: lint
lint: ## Checks format, lints, and dependencies: their versions, licences, sources and advisories
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- --deny warnings
	@cargo clippy --quiet --package worker-drain --no-default-features -- --deny warnings
	@# Unoptimised: it runs for seconds, and its optimised build takes minutes.
	@cargo deny --version 2>/dev/null | grep -q . || cargo install --quiet --debug --locked cargo-deny@0.20.2
	@cargo deny --log-level error check --deny warnings bans licenses sources
	@if cargo deny --log-level off fetch db; then cargo deny --log-level error check --disable-fetch --deny warnings advisories; \
	  else echo "advisories were NOT checked: RustSec's database cannot be fetched here (deny.toml names its address)" >&2; fi

.PHONY: crds
crds: ## Writes crds/ and docs/reference.md anew
	@$(BUILD) --bins
	@mkdir -p crds
	@$(TARGET)/debug/worker-drain crd > crds/.new && mv crds/.new crds/workerdrains.yaml
	@$(TARGET)/debug/worker-drain crd --reference > crds/.new && mv crds/.new docs/reference.md
	@cp crds/workerdrains.yaml charts/worker-drain/files/workerdrains.yaml

.PHONY: bench
bench: parts ## Compares with Celery's own tools, and measures holds, memory, calls to ECS, in the release build
	@$(BUILD) --release --bin worker-drain --bin bench
	@$(TARGET)/release/bench

# Which seeds `make simulate` runs.
SEEDS ?= 0..100000

.PHONY: simulate
simulate: ## Runs whole rollouts with faults on virtual time: make simulate SEEDS=0..200000
	@cargo run --quiet --profile simulate --package simulation -- --seeds $(SEEDS)

# What `make mutants` changes, and where it writes what became of it.
MUTATED := --package worker-drain-plan --package worker-drain --file 'controller/plan/src/**' --file controller/src/reconcile.rs \
	--exclude 'controller/plan/src/invariants*' --exclude 'controller/plan/src/invariants/**' --exclude '**/tests.rs' \
	--output $(TARGET) --no-shuffle

# The policy's own tests take seconds; what they let live is judged by the simulation's fixed seeds.
.PHONY: mutants
mutants: ## Changes the policy in every small way and asks the tests; takes hours, so it is no part of test
	@command -v cargo-mutants >/dev/null || cargo install --locked cargo-mutants@27.1.0
	@rm -rf $(TARGET)/mutants.out
	@PROPTEST_CASES=16 cargo mutants $(MUTATED) --test-package worker-drain-plan || case $$? in 2|3) ;; *) exit 1 ;; esac
	@cargo mutants $(MUTATED) --iterate --test-package simulation --profile mutants -- --test seeds -- fixed_seeds

.PHONY: image
image: ## Builds the operator's image with podman or docker
	@tool=$$(command -v podman || command -v docker) || { echo "install podman or docker" >&2; exit 1; }; \
	$$tool build --file Containerfile --tag worker-drain:$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1) .

.PHONY: clean
clean: ## Removes all that was built or downloaded
	rm -rf .cache
	cargo clean

# The whole workspace each time, so that every goal sees the same features and nothing is built twice.
BUILD := cargo build --quiet --workspace

.PHONY: parts
parts:
	@tests/setup/apt.sh
	@tests/setup/python.sh

# Only the tests need a control plane, and Prometheus' tool.
.PHONY: kube
kube:
	@tests/kube/build.sh

.PHONY: promtool
promtool:
	@tests/setup/promtool.sh
