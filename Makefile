# Everything a contributor or CI calls. `make demo` and `make test` work on a fresh clone.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: help deps build run demo demo-redis-nats test unit integration truth lint fmt docs generate bench load mutants coverage clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

deps: ## Install the servers and tools that tests, demos and benchmarks start
	@scripts/deps.sh tools

build: ## Build the three binaries, optimized
	$(CARGO) build --release --bin prism-proxy --bin multicast-registry-runner --bin prism-probe

run: build ## Run the whole system in one process, on memory slots, namespace `default`
	$(CARGO) run --release --bin prism-proxy -- --embedded

demo: ## Register, enumerate, multicast and receive, through the proxy, on memory slots
	@scripts/demo.sh memory

demo-redis-nats: ## The same on a real Redis and a real NATS
	@scripts/deps.sh
	@scripts/demo.sh redis-nats

test: deps lint unit integration docs ## Everything that CI checks

unit: ## Unit, property, conformance and protocol tests of every crate
	$(CARGO) test --workspace --exclude integration --all-features

integration: ## Whole-system tests: real binaries, real servers
	$(CARGO) build --workspace --bins --examples
	$(CARGO) test -p integration

truth: ## What is told of deliveries against what happened, 100,000 targets and 100 kills; takes some minutes
	$(CARGO) build --workspace --bins
	PRISM_TRUTH=full $(CARGO) test -p integration --test stories truth -- --nocapture

lint: ## Formatting, clippy, dependency policy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	@scripts/deps.sh lint
	@$(CARGO) fetch --locked --quiet # also what other platforms need: the next line looks at all of it
	$(CARGO) deny --offline --log-level error check bans licenses sources

fmt: ## Format the code
	$(CARGO) fmt --all

docs: ## Build the API documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --all-features --quiet

generate: ## Write what is made from the code: plugin-manifest.yaml, docs/configuration.md
	$(CARGO) run -p integration --bin generate

bench: ## Measure, beside the raw floors, into target/bench/report.json
	@scripts/deps.sh
	$(CARGO) build --release --bins --examples
	$${CARGO_TARGET_DIR:-target}/release/bench

load: ## Latency against the number of identities and of targets, into docs/scale.svg and docs/multicast-cost.svg
	@scripts/deps.sh
	$(CARGO) run --release --bin load

mutants: ## Take safeguards away one by one; fails where no test notices. A build and a test run for each
	@scripts/mutants.sh

coverage: ## Line coverage into target/coverage; fails below the bounds
	@scripts/deps.sh coverage
	@scripts/coverage.sh

clean: ## Remove everything that was built
	$(CARGO) clean
