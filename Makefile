# make demo       the plan and the flows in a small VPC of network namespaces, in seconds
# make test       everything that a change must pass; installs the tools it needs
# make test-boot  machines that boot with the package, under systemd-nspawn; as root or with sudo
# make test-long  also what takes minutes
# make golden     writes the golden plans anew; read the diff before committing it
# make bench      speed, side by side with ip and BIRD
# make bench-agent  the running agent: drift, flush, start, storm, rest (three minutes)
# make soak       the running agent over 10,000 passes and 1,000 documents (half an hour)
# make build      the release binary
# make packages   a .deb and an .rpm in target/packages; ARCH=arm64 for another architecture
# make lint       formatting and clippy
# make deny       licences and sources of all dependencies, by deny.toml

CARGO ?= cargo
DEPS  := packaging/dev/install-deps.sh

.PHONY: build packages demo test test-boot test-long golden bench bench-agent soak lint deny deps

build:
	@$(DEPS) build
	$(CARGO) build --release --locked

packages:
	@$(DEPS) packages
	packaging/build.sh $(if $(ARCH),-a $(ARCH))

demo:
	@$(DEPS) demo
	$(CARGO) build --locked --bin trailblazer --example demo
	@$(CARGO) run --locked --quiet --example demo

# The packages' binary and the base root take minutes each. They are made beside the tests, of the
# time that those leave (nice); tests/packages waits for them.
test: deps
	@mkdir -p target
	@nice -n 19 packaging/build-binary.sh >target/binary.log 2>&1 & \
	nice -n 19 packaging/dev/as-root.sh packaging/dev/debian-root.sh >target/root.log 2>&1 & \
	$(CARGO) test --locked; status=$$?; wait; exit $$status

test-boot:
	@$(DEPS) boot
	@mkdir -p target
	@packaging/dev/as-root.sh packaging/dev/debian-root.sh
	packaging/build.sh
	$(CARGO) test --locked --test boot -- --ignored --test-threads=2

test-long: deps packages
	@$(DEPS) boot
	@packaging/dev/as-root.sh packaging/dev/debian-root.sh
	TRAILBLAZER_LONG=1 $(CARGO) test --locked -- --include-ignored \
		--skip child_fetches # run by other tests

golden:
	TRAILBLAZER_BLESS=1 $(CARGO) test --locked --test golden every_plan_matches_its_golden_file

bench:
	@$(DEPS) bench
	$(CARGO) bench --locked --bench passes -- --quick

bench-agent:
	@$(DEPS) bench
	$(CARGO) bench --locked --bench agent -- --quick

soak:
	@$(DEPS) bench
	$(CARGO) bench --locked --bench agent -- --soak

lint:
	@$(DEPS) build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny:
	@$(DEPS) deny
	@packaging/dev/deny.sh

deps:
	@$(DEPS) test
	@packaging/dev/image-tools.sh
