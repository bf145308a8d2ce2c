# make demo       shows the plan and the flows in a small VPC of network namespaces, in seconds
# make test       runs all tests that a change must pass; installs the tools for the tests
# make test-images  checks the images, the DaemonSet, the public CI and a release; fetches 400 MB of checkers
# make test-boot  boots machines with the package under systemd-nspawn; as root or with sudo
# make test-roots runs make test inside of bare roots of Debian 12 and 13; as root or with sudo
# make test-long  also runs the tests that take minutes, and test-roots
# make golden     rewrites the golden plans; read the diff before a commit
# make bench      measures speed, side by side with ip and BIRD
# make bench-agent  measures the running agent: drift, flush, start, storm, rest (three minutes)
# make bench-instructions  counts the instructions of the pure stages, and compares them with a baseline
# make bench-vpc  measures a pass of the vpc role with nothing to do, beside its reads alone
# make bench-packets  measures the price of a packet: host and NAT, beside conntrack, MASQUERADE and others' rules
# make headline   measures how many servers one NAT carries, with and without S3 (three minutes); writes docs/headline.*
# make soak       runs the agent over 10,000 passes and 1,000 documents (half an hour)
# make fuzz       feeds the decoders with random input, a minute each
# make build      builds the release binary
# make packages   builds a .deb and an .rpm in target/packages; ARCH=arm64 for another architecture
# make lint       checks formatting and clippy
# make deny       checks licences and sources of all dependencies against deny.toml

CARGO ?= cargo
DEPS  := packaging/dev/install-deps.sh
# sudo hides the toolchain of the calling user.
IN_ROOT = packaging/dev/as-root.sh env CARGO_HOME="$${CARGO_HOME:-$$HOME/.cargo}" \
	RUSTUP_HOME="$${RUSTUP_HOME:-$$HOME/.rustup}" TRAILBLAZER_DATA="$$TRAILBLAZER_DATA" \
	packaging/dev/test-in-root.sh

.PHONY: build packages demo test test-images test-boot test-roots test-long golden bench bench-agent bench-instructions bench-vpc bench-packets headline soak fuzz lint deny deps

build:
	@$(DEPS) build
	TRAILBLAZER_COMMIT="$$(packaging/version.sh)" $(CARGO) build --release --locked

packages:
	@$(DEPS) packages
	packaging/build.sh $(if $(ARCH),-a $(ARCH))

demo:
	@$(DEPS) demo
	$(CARGO) build --locked --bin trailblazer --example demo
	@$(CARGO) run --locked --quiet --example demo

# The packages' binary and the Debian root file system take minutes each. Both are built in the
# background at low priority while the tests run; tests/packages waits for both. Most tests wait for
# timers and timeouts most of their time, so four run at once also on two cores.
test: deps
	@mkdir -p target
	@nice -n 19 packaging/build-binary.sh >target/binary.log 2>&1 & \
	nice -n 19 packaging/dev/as-root.sh packaging/dev/debian-root.sh >target/root.log 2>&1 & \
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} $(CARGO) test --locked --no-fail-fast; \
	status=$$?; wait; exit $$status

test-images: deps
	@packaging/dev/image-tools.sh
	$(CARGO) test --locked --test images -- --include-ignored

test-boot:
	@$(DEPS) boot
	@mkdir -p target
	@packaging/dev/as-root.sh packaging/dev/debian-root.sh
	packaging/build.sh
	$(CARGO) test --locked --test boot -- --ignored --test-threads=2

test-roots:
	@$(DEPS) boot
	$(IN_ROOT) bookworm
	$(IN_ROOT) trixie

test-long: deps packages
	@$(DEPS) boot
	@$(DEPS) instructions
	@packaging/dev/image-tools.sh
	@packaging/dev/cloud-tools.sh
	@packaging/dev/vpc-tools.sh
	@packaging/dev/as-root.sh packaging/dev/debian-root.sh
	TRAILBLAZER_LONG=1 $(CARGO) test --locked --no-fail-fast -- --include-ignored \
		--skip child_fetches # run by other tests
	$(MAKE) bench-instructions
	$(MAKE) test-roots

golden:
	TRAILBLAZER_BLESS=1 $(CARGO) test --locked --test golden every_plan_matches_its_golden_file

bench:
	@$(DEPS) bench
	$(CARGO) bench --locked --bench passes -- --quick

bench-agent:
	@$(DEPS) bench
	$(CARGO) bench --locked --bench agent -- --quick

bench-instructions:
	@$(DEPS) instructions
	$(CARGO) bench --locked --features fuzzing --bench instructions

bench-vpc:
	@$(DEPS) build
	$(CARGO) bench --locked --bench vpc

bench-packets:
	@$(DEPS) bench
	$(CARGO) bench --locked --bench packets -- --quick

headline:
	@$(DEPS) demo
	$(CARGO) bench --locked --bench headline

soak:
	@$(DEPS) bench
	$(CARGO) bench --locked --bench agent -- --soak

fuzz:
	@packaging/dev/fuzz.sh

lint:
	@$(DEPS) build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --features fuzzing --lib --bins --bench instructions -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet

deny:
	@$(DEPS) deny
	@packaging/dev/deny.sh

deps:
	@$(DEPS) test
