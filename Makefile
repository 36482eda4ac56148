# Cofferdam. `make help` explains the targets.

GO          ?= go
PREFIX      ?= /usr/local
DESTDIR     ?=
BINARIES    := cofferdam cofferdam-broker cofferdam-init cofferdam-proxy containerd-shim-cofferdam-v1
ON_HOST     := ./hack/demo ./hack/rundemo ./integration # their tests run Cofferdam itself, and look for what it leaves: one at a time
FAULT_TESTS := Fault|ASignalToEach|StandsStill|EachRule|AFullDisk|MemoryRunsOut|DescriptorsRunOut|ABadPolicy
TOOLS       := $(GO) tool -modfile=hack/tools/go.mod

.PHONY: help
help: ## explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the binaries into bin/
	@GO='$(GO)' hack/build.sh bin $(addprefix ./cmd/,$(BINARIES))

.PHONY: run
run: build ## show the main job: an agent between its two walls, without a daemon, as whoever calls; nothing is installed
	@$(GO) run ./hack/rundemo -bin bin

.PHONY: run-containerd
run-containerd: build ## the same in a container of a private containerd (root on Debian; installs what it needs)
	@hack/packages.sh run
	@$(GO) run ./hack/demo -bin bin

.PHONY: test
test: packages test-unit test-integration ## install or name what the tests need, then run all of them

.PHONY: packages
packages: ## install what the tests need (root on Debian), or name what is missing
	@hack/packages.sh test

.PHONY: test-unit
test-unit: ## unit tests and kernel tests: these make their own namespaces and touch nothing of the host
	$(GO) vet ./...
	$(GO) test -count=1 $$($(GO) list ./... | grep -v $(ON_HOST:.%=-e '%$$'))

.PHONY: test-integration
test-integration: build ## real containers under Debian's containerd and the current one (root)
	$(GO) test -count=1 -timeout 30m -p 1 $(ON_HOST)

.PHONY: attack
attack: packages build ## make every attack on every front, and print attack, front, outcome and control (root)
	@$(GO) test -count=1 -timeout 60m -run '^(TestAttacks|TestAttacksAfterFaults|TestAWorkspaceCannotStrikeBack|TestADNSTunnelCarriesNothing|TestStreamsGiveNothingAway|TestEverySystemCall)$$' ./integration -args -attacks $(CURDIR)/bin/attacks.txt; \
	status=$$?; cat bin/attacks.txt; exit $$status

.PHONY: bench
bench: build ## in turn: start and memory beside the stock runtime and bwrap, work inside and outside, the proxy beside HAProxy, nginx and tinyproxy, an agent beside a hostile one (root)
	@hack/packages.sh bench
	$(GO) test -timeout 60m -run '^$$' -bench . -benchtime 1x ./integration

.PHONY: test-long
test-long: test-faults ## what takes too long for every change: test-faults, and each fuzzer for ten minutes, or FUZZTIME (make test runs their seeds only)
	@$(MAKE) --no-print-directory fuzz FUZZTIME=$(or $(FUZZTIME),10m)

.PHONY: test-faults
test-faults: build ## each fault at each step of each front, and FAULTS (default 2000) random ones; SEED repeats a choice of them (root)
	$(GO) test -count=1 -timeout 12h -v -run '$(FAULT_TESTS)' ./integration -faults $(or $(FAULTS),2000) -seed $(or $(SEED),0)

.PHONY: fuzz
fuzz: ## run every fuzzer for FUZZTIME (default 1m) each
	@hack/fuzz.sh $(or $(FUZZTIME),1m)

.PHONY: lint
lint: ## run the linters; they are Go tools of hack/tools/go.mod
	$(TOOLS) golangci-lint run ./...
	shellcheck hack/*.sh .ci/run

.PHONY: fmt
fmt: ## format the code
	$(TOOLS) golangci-lint fmt ./...

.PHONY: install
install: build ## install below DESTDIR/PREFIX (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(addprefix bin/,$(BINARIES)) $(DESTDIR)$(PREFIX)/bin/
	install -d -m 0755 $(DESTDIR)/etc/cofferdam/policies

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
