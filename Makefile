# `make` lists the targets. Everything a target needs beyond Rust, Python 3 and Debian's ordinary tools goes into .deps/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup check test test-kubernetes bench instructions soak demo demo-down playground playground-down dev

CARGO ?= cargo
# Debian keeps ip and iptables where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/sbin
# Warnings are errors here and not in the source: a newer compiler must still build a release.
STRICT := -D warnings
# One build for all that measures: another choice of packages would be other features, and compiled again.
RELEASE := $(CARGO) build --release --locked -p landbridge -p xds-load -p bench-suite --bins --bench instructions

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Envoy, API server and kubectl into .deps/; iproute2, iptables and valgrind where this is root
	@scripts/setup.sh

check: ## the quick loop: format, clippy, unit tests
	@scripts/setup.sh rust
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- $(STRICT)
	$(CARGO) test --workspace --lib --bins --locked

test: ## everything: format, clippy, all tests, real Envoys and API servers, instruction counts, a minute of faults
	@scripts/setup.sh
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- $(STRICT)
	$(CARGO) build --workspace --bins --locked
	@scripts/test.sh
	@$(MAKE) --no-print-directory instructions
	@$(MAKE) --no-print-directory soak SOAK_MINUTES=$(if $(CI),2,1)

test-kubernetes: ## only the tests with real Kubernetes API servers
	@scripts/setup.sh
	$(CARGO) build --locked -p landbridge -p xds-tests --bins
	@scripts/test.sh -p xds-tests --test kubernetes

bench: ## the figures, each beside its floor, into target/bench/report.md (ONLY=fanout one scenario, LONG=1 full lengths)
	@scripts/setup.sh rust
	$(RELEASE)
	@target/release/bench run $(if $(ONLY),--only $(ONLY)) $(if $(LONG),--long)

instructions: ## count the instructions of the hot paths under callgrind; fails at 5 % over the baseline (BLESS=1 moves it)
	@scripts/setup.sh rust
	$(RELEASE)
	@target/release/bench instructions $(if $(BLESS),--bless)

SOAK_MINUTES ?= 60
soak: ## churn with faults for an hour (SOAK_MINUTES=10): killed servers, lost clusters, storms
	@scripts/setup.sh rust
	$(RELEASE)
	@target/release/bench soak --minutes $(SOAK_MINUTES)

demo: ## two clouds of real Envoys failing over by themselves (KEEP=1 leaves them up)
	@scripts/setup.sh demo
	$(CARGO) build --locked -p landbridge -p xds-tests --bins
	@target/debug/demo run $(if $(KEEP),--keep)

demo-down: ## take down what `make demo KEEP=1` left up
	@target/debug/demo down

playground: ## two clouds on real API servers, with landbridge and Envoys, left running for you and kubectl
	@scripts/setup.sh playground
	$(CARGO) build --locked -p landbridge -p xds-tests --bins
	@target/debug/playground up

playground-down: ## take down what `make playground` left up
	@target/debug/playground down

dev: ## run the server on the example clusters: no Kubernetes, development CA and tokens
	@scripts/setup.sh rust
	$(CARGO) run --locked --bin landbridge -- serve --cluster-id east --dev-token-issuer --state-dir target/dev \
	  --files east=deploy/examples/two-clouds/east --files west=deploy/examples/two-clouds/west
