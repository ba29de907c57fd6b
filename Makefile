# `make test` is the whole suite; `make help` lists the rest. Nothing is installed by hand.
.DEFAULT_GOAL := help
.PHONY: help test test-core test-all test-long fuzz fuzz-ready interop browser bench bench-data bench-dag bench-hash bench-ml bench-ml-peers lint fmt prerequisites

help: ## What can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

test: test-core test-all ## The whole suite: the core first, then everything with libtorch

# One after the other even under `make -j`: the core is the gate.
test-all: test-core

test-core: ## The core alone, without libtorch: the edit loop
	cargo test --no-default-features

test-all: prerequisites
	cargo test

test-long: prerequisites ## The tests that take minutes (their names start with long_)
	PIPE_LONG=1 cargo test --release long_ -- --nocapture

# How long each target is fuzzed, in seconds.
FUZZ_SECONDS ?= 600
# Beside a target's own seeds.
FUZZ_MORE_pipeline = pipelines tests/bad src/cli/init

fuzz: $(patsubst fuzz/fuzz_targets/%.rs,fuzz-%,$(wildcard fuzz/fuzz_targets/*.rs)) ## Fuzzes each reader of files that others may have written, FUZZ_SECONDS (600) each

fuzz-%: fuzz-ready
	mkdir -p fuzz/corpus/$*
	cargo +nightly fuzz run $* fuzz/corpus/$* fuzz/seeds/$* $(FUZZ_MORE_$*) -- \
		-max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=10 -rss_limit_mb=2048

fuzz-ready:
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing; it needs a nightly toolchain:" \
		"rustup toolchain install nightly && cargo install cargo-fuzz" >&2; exit 1; }

interop: prerequisites .interop/ready ## Round trips with PEFT and AdapterHub; installs them and PyTorch, 3 GB, into .interop
	PIPE_INTEROP_REPORT=bench/interop.md cargo test --test it interop:: -- --nocapture

.interop/ready: tests/interop/requirements.txt
	python3 -m venv .interop
	.interop/bin/pip install --quiet -r tests/interop/requirements.txt
	touch .interop/ready

browser: ## Looks at the HTML report in headless Chromium, if there is one; screenshots go to target/browser
	PIPE_BROWSER=1 cargo test --no-default-features --test it browser_ -- --nocapture

bench-data: ## Time and memory of reading a file as large as Nerus (BENCH_PYTHON: one that has the package nerus)
	python3 bench/data.py $(if $(BENCH_PYTHON),--python $(BENCH_PYTHON))

bench: bench-dag bench-hash ## The orchestrator's speed: both of the following

bench-dag: target/release/pipe-front ## Many small steps beside ninja and doit (BENCH_PATH: a folder with them)
	PATH="$(if $(BENCH_PATH),$(BENCH_PATH):)$$PATH" python3 bench/dag.py

bench-hash: target/release/pipe-front ## Hashing beside b3sum (BENCH_PATH: a folder with it)
	PATH="$(if $(BENCH_PATH),$(BENCH_PATH):)$$PATH" python3 bench/hash.py

bench-ml: prerequisites ## Models beside Python: training, scoring, generation (BENCH_ML: more words, as --shape S --only LoRA)
	ml=$$(cargo bench --no-run --bench ml --message-format=json-render-diagnostics \
		| sed -n 's/.*"name":"ml".*"executable":"\([^"]*\)".*/\1/p') && python3 bench/ml/compare.py --ours "$$ml" $(BENCH_ML)

bench-ml-peers: .peers/ready ## Installs transformers, PEFT, AdapterHub and lm-evaluation-harness, 3 GB, into .peers

.peers/ready: bench/ml/requirements.txt
	python3 -m venv .peers
	.peers/bin/pip install --quiet -r bench/ml/requirements.txt
	touch .peers/ready

target/release/pipe-front: FORCE
	cargo build --release --no-default-features --features front --bin pipe-front

FORCE:

lint: prerequisites ## Format, clippy and rustdoc, with and without libtorch
	cargo fmt --check
	cargo clippy --all-targets --no-default-features -- -D warnings
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --lib --quiet

fmt: ## Formats the code
	cargo fmt

prerequisites:
	@root=. sh .cargo/prerequisites.sh
