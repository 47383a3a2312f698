# What can be done here. Each goal does all of its own set-up; only Rust, Go, Python 3 and Node must be there, and root
# or sudo the first time.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where Cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help
help: ## Lists the goals
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: parts ## Installs what demo and tests need (Redis, Python with Celery), and builds the binaries
	@$(BUILD) --bins

.PHONY: demo
demo: setup ## Takes a real Celery fleet through a deployment, without worker-drain and with it
	@$(TARGET)/debug/demo

.PHONY: tour
tour: setup ## Starts what the README's tour walks around in, until Ctrl-C
	@$(TARGET)/debug/tour

.PHONY: test
test: parts kube lint ## Runs every test, and says how many there were
	@$(BUILD) --all-targets
	@code=0; cargo test --workspace --no-fail-fast 2>&1 | tee $(TARGET)/test-output || code=$$?; \
	awk -f tests/setup/count.awk $(TARGET)/test-output || code=$$?; exit $$code

.PHONY: lint
lint: ## Checks format and lints
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- --deny warnings

.PHONY: crds
crds: ## Writes crds/ anew
	@$(BUILD) --bins
	@mkdir -p crds
	@$(TARGET)/debug/worker-drain crd > crds/.new && mv crds/.new crds/workerdrains.yaml
	@cp crds/workerdrains.yaml charts/worker-drain/files/workerdrains.yaml

.PHONY: bench
bench: setup ## Compares with Celery's own tools, and measures holds, memory, calls to ECS
	@$(TARGET)/debug/bench

# Which seeds `make simulate` runs.
SEEDS ?= 0..100000

.PHONY: simulate
simulate: ## Runs whole rollouts with faults on virtual time: make simulate SEEDS=0..200000
	@cargo run --quiet --release --package simulation -- --seeds $(SEEDS)

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

# Only the tests need a control plane.
.PHONY: kube
kube:
	@tests/kube/build.sh
