# What a person runs here. `make` shows it. Only rustup's toolchain, gcc, make and git are needed;
# the tests bring what else they use (scripts/test-deps.sh).

CARGO ?= cargo
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET_DIR)/debug/backupy-agent
VENV := .tools/venv/bin
# For `make demo ARGS=--pull-the-plug` and `make plane ARGS="a word of a scenario"`.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo build test test-binary deps test-rust engines engines-long plane units secrets lint fmt bench fuzz figures clean-demo

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

demo: build ## back up a database for real, on this machine alone (ARGS=--pull-the-plug: kill it on the way)
	@$(BINARY) demo $(ARGS)

build: ## build the binary (profile dev: what does the heavy work is optimised all the same)
	@$(CARGO) build

test: deps test-rust engines plane units secrets ## everything: unit, actors, properties, the real binary, a foreign control plane, systemd

deps: ## install what the tests need
	@scripts/test-deps.sh

test-rust:
	@$(CARGO) test --no-fail-fast

# The binary that the tests were built with. `cargo build` would build half of the dependencies again, for
# other features.
test-binary:
	@$(CARGO) test --no-run --quiet

engines: deps ## back up real servers of every engine and restore them (on Debian, as root)
	@$(CARGO) test --test engines -- --ignored --test-threads 2 $(ARGS)

engines-long: deps ## the same with 300 MB a database
	@ENGINES_MB=300 $(CARGO) test --test engines -- --ignored --test-threads 1 --nocapture restores_to_the_same for_a_look_and_compared

plane: deps test-binary ## drive the binary from the Python control plane (LONG=1: also what takes minutes)
	@$(VENV)/python -B tests/plane/run.py --binary $(BINARY) $(ARGS)

units: deps test-binary ## systemd-analyze over config/
	@scripts/check-units.sh $(BINARY)

secrets: ## no secret in the tree, none in a log call
	@scripts/check-secrets.sh

lint: deps ## format, clippy (with and without the control plane), documentation, dependencies
	@$(CARGO) fmt --check
	@$(CARGO) clippy --all-targets -- -D warnings
	@$(CARGO) clippy --no-default-features -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet
	@PATH="$(CURDIR)/$(VENV):$$PATH" $(CARGO) deny --log-level error check bans licenses sources

fmt: ## format the code
	@$(CARGO) fmt

bench: ## the benchmarks (release profile: minutes to build)
	@$(CARGO) bench

fuzz: ## run each fuzz target for FUZZ_SECONDS=60 (TARGETS="token settings": only these; needs g++)
	@fuzz/run.sh $(TARGETS)

figures: deps ## measure start, idle and backups of the release binary (20 minutes on a quiet machine)
	@$(CARGO) build --release
	@$(VENV)/python -B scripts/figures.py --binary $(TARGET_DIR)/release/backupy-agent $(ARGS)
