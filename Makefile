# Tripod. `make help` explains every target.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
ROUNDS ?= 1
# One configuration for programs, tests and lint, so that Kubernetes is compiled once.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false

CONTROLLER_GEN := $(GO) run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# A peer of the benchmarks; SQLite needs a C compiler.
KINE_VERSION := v0.16.4

# Debian packages that building, tests and the lab need; bin/multikind installs
# what the lab needs by itself too.
PACKAGES := containerd runc containernetworking-plugins iproute2 iptables nftables conntrack \
	postgresql-15 etcd-client protobuf-compiler

# A Kubernetes built from its module does not know its version.
KUBERNETES_VERSION := v1.36.3
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
KUBERNETES_LDFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=$(KUBERNETES_VERSION) \
	-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36 \
	-X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES_VERSION)

.PHONY: help
help: ## Explain every target
	@awk 'BEGIN{FS=":.*## "} /^[a-z-]+:.*## /{printf "  make %-15s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install the Debian packages that are missing
	@missing=""; for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing from Debian:$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

.PHONY: build
build: ## Build every program into bin/ (the first time compiles Kubernetes: about 6 minutes on 2 cores)
	$(GO) build -ldflags '-X tripod.dev/tripod/hub.Version=$(VERSION) -X main.version=$(VERSION)' -o bin/ ./cmd/...
	$(GO) build -ldflags '$(KUBERNETES_LDFLAGS)' -o bin/kubernode ./test/multikind/kubernode
	$(GO) build -o bin/ ./test/multikind ./test/storemember
	$(GO) build -ldflags '-s -w' -o bin/pause ./test/multikind/image/pause
	$(GO) build -ldflags '-s -w' -o bin/ledger-api ./test/multikind/image/ledgerapi
	$(GO) build -ldflags '-s -w' -o bin/register ./test/register
	cd test/multikind/coredns && $(GO) build -ldflags '-s -w' -o ../../../bin/coredns .

.PHONY: clients
clients: ## Build others' programs that tests point at the gateway (helm, a sample of an aggregated API)
	cd test/clients && $(GO) build -o ../../bin/ tool

.PHONY: images
images: build ## Write the images of agent and guard as archives; PREFIX=registry.example/tripod names them
	bin/multikind images $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: demo
demo: deps build ## From nothing to a survived disaster; ROUNDS=5 alternates the centers
	bin/multikind demo --rounds $(ROUNDS)

.PHONY: demo-down
demo-down: ## Remove everything that the demo made
	bin/multikind down

.PHONY: lab
lab: deps build ## Boot or repair a three-center lab and print how to use it
	bin/multikind up
	@echo 'next: eval "$$(bin/multikind env)"'

.PHONY: test
test: deps build clients ## Every rung of the pyramid: unit, conformance, simulation, then a slice of the scenarios in the lab
	$(GO) test $$($(GO) list ./... | grep -v /test/multikind/scenario) -timeout 20m
	$(GO) test ./test/multikind/scenario -count 1 -timeout 25m -v

.PHONY: test-unit
test-unit: deps build clients ## Only what needs no lab
	$(GO) test $$($(GO) list ./... | grep -v /test/multikind/scenario) -timeout 20m

.PHONY: scenarios
scenarios: deps build ## Every disaster in the lab; ROUNDS=3, ONLY='S1|S17'; writes _scenarios/result.json and docs/scenarios.md
	$(GO) test ./test/multikind/scenario -count $(ROUNDS) -timeout 0 -v -all -results $(CURDIR)/_scenarios $(if $(ONLY),-run '^Test($(ONLY))([A-Z]|$$)')

.PHONY: bench-store
bench-store: build ## Measure the hub's store beside etcd, a JSON line a row; BENCH="--only 'put/3'" chooses
	CGO_ENABLED=1 GOBIN=$(CURDIR)/bin $(GO) install github.com/k3s-io/kine@$(KINE_VERSION)
	$(GO) build -ldflags '-X main.kineVersion=$(KINE_VERSION)' -o bin/bench ./test/bench
	@bin/bench store $(BENCH)

.PHONY: bench-gateway
bench-gateway: build ## Measure gateway and tunnel beside bare proxies, TLS and remotedialer, a JSON line a row; BENCH="--only '^tunnel/'" chooses
	$(GO) build -o bin/bench ./test/bench
	cd test/bench/remotedialer && $(GO) build -o ../../../bin/remotedialer .
	@bin/bench gateway $(BENCH)

.PHONY: bench-failover
bench-failover: deps build ## Failovers and switchovers under traffic, a JSON line a row; ROUNDS=10
	@bin/multikind --name bench bench --rounds $(ROUNDS); code=$$?; bin/multikind --name bench down >/dev/null; exit $$code

.PHONY: noise
noise: deps build ## Disturb a healthy fleet: no role may move; DURATION=2h SEED=7
	@bin/multikind --name noise noise --duration $(DURATION) --seed $(SEED); code=$$?; bin/multikind --name noise down >/dev/null; exit $$code

.PHONY: simulate
simulate: ## Play schedules of the failover engine's simulation, a quarter of them more with plans and with pledges; SEEDS=100000 FIRST=1
	$(GO) test ./failover/sim -run TheInvariantsHold -count 1 -timeout 0 -v -seeds $(SEEDS) -first $(FIRST)

.PHONY: bench-engine
bench-engine: ## Measure the failover engine in one process: the loss of a center with 1,000 applications
	@$(GO) test ./failover/controller -run TestACenterWithManyApplicationsIsLost -count 1 -v -applications 1000 -driver 1s -write 5ms | grep '^{'

DURATION ?= 10m
SEED ?= 0
SEEDS ?= 100000
FIRST ?= 1

.PHONY: robustness
robustness: ## Faults against the store, checked; DURATION=1h SEED=7 (0: by chance) DAMAGE=200
	$(GO) build -o bin/ ./test/robustness ./test/storemember
	bin/robustness program --out bin/storemember-clocks
	bin/robustness damage --seed $(SEED) --cases $(or $(DAMAGE),60)
	bin/robustness run --seed $(SEED) --duration $(DURATION) --clocks --member bin/storemember-clocks

.PHONY: robustness-bugs
robustness-bugs: ## Plant bugs in the store one by one: each must be found (about 15 minutes)
	$(GO) build -o bin/ ./test/robustness
	bin/robustness bugs

.PHONY: fuzz
fuzz: ## Fuzz the gateway's path router and header filter; DURATION=10m each
	$(GO) test ./hub/gateway -run '^$$' -fuzz FuzzParse -fuzztime $(DURATION)
	$(GO) test ./hub/gateway -run '^$$' -fuzz FuzzClean -fuzztime $(DURATION)

.PHONY: differential
differential: ## A million random (user, rules, request) triples against Kubernetes' RBAC; SEED=7
	$(GO) test ./hub/apiserver -run TestWhoMayAgreesWithRBAC -triples 1000000 -seed $(SEED) -v -timeout 60m

.PHONY: verify
verify: deps lint ## What CI runs beside the tests: formatting, vet, lint, generated code up to date
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	$(GO) vet ./...
	cd test/multikind/coredns && $(GO) vet ./...
	$(GO) mod tidy -diff
	cd test/multikind/coredns && $(GO) mod tidy -diff
	$(MAKE) generate
	@test -z "$$(git status --porcelain -- hub/api proto)" || { git status --short -- hub/api proto; echo 'generated code is stale: commit the result of `make generate`'; exit 1; }

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Import rules, sizes and the usual checks
	$(GOLANGCI_LINT) run ./...

$(GOLANGCI_LINT):
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/golangci-lint $@

.PHONY: generate
generate: ## Regenerate deepcopy, CRDs and protobuf code beside their sources
	$(CONTROLLER_GEN) object paths=./hub/api/v1alpha1
	$(CONTROLLER_GEN) crd:crdVersions=v1 output:crd:artifacts:config=hub/api/crds paths=./hub/api/v1alpha1
	./proto/generate.sh

.PHONY: clean
clean: ## Remove the lab and what was built
	@[ ! -x bin/multikind ] || bin/multikind down
	rm -rf bin _demo _scenarios
