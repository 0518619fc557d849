# The commands of this repository. `make` alone lists them.

# go.mod names a Go release newer than many machines have. With "auto" any Go from 1.21 on fetches that release by itself; being set
# here it also wins over `go env -w GOTOOLCHAIN=local`.
export GOTOOLCHAIN := auto

GO       ?= go
FUZZTIME ?= 10s
# What the tests may take altogether before they count as hung.
TIMEOUT  ?= 15m

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# The race detector needs a C compiler; without one the tests run without it, and say so.
RACE := $(if $(shell command -v gcc || command -v clang || command -v cc),-race)

# Linters are pinned in a module of their own, which keeps their dependencies out of the gateway's.
TOOL := $(GO) tool -modfile=.ci/tools/go.mod

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the commands
	@echo 'Usage: make COMMAND'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

.PHONY: build
build: ## build every program into bin/
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: run
run: build ## run the gateway in front of the Bookinfo services; Ctrl-C stops both
	@bin/bookinfo demo -- bin/gatehouse run --config deploy/examples/bookinfo --state .state

.PHONY: test
test: ## run all tests, with the race detector
	@$(if $(RACE),:,echo 'no C compiler: testing without the race detector' >&2)
	$(GO) test $(RACE) -timeout $(TIMEOUT) ./...

.PHONY: lint
lint: ## check formatting, vet, staticcheck and golangci-lint
	@files=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .) && [ -z "$$files" ] || { echo "not formatted, run 'make fmt': $$files" >&2; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) golangci-lint run

.PHONY: fmt
fmt: ## format every Go file
	@"$$($(GO) env GOROOT)/bin/gofmt" -w .

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	@set -e; grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's|^\(.*\)/[^/]*:func |\1 |' | sort | \
	while read -r dir target; do \
		echo "$$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null; \
	done

# What `make bench` measures, how often and for how long; bench/README.md says what else there is.
SCENARIO ?= *
ROUNDS   ?= 3
DURATION ?= 5s
PEERS    ?=
BENCHFLAGS ?=

.PHONY: bench
# A gateway that is named by BENCH_GATEHOUSE need not be built.
bench: $(if $(BENCH_GATEHOUSE),,build) ## load the gateway and its peers side by side: SCENARIO=h1,h2 ROUNDS=3 DURATION=5s PEERS=
	$(GO) run ./bench -scenario '$(SCENARIO)' -rounds $(ROUNDS) -duration $(DURATION) -peers '$(PEERS)' $(BENCHFLAGS)

# The compiler takes cmd/gatehouse-proxy/default.pgo by itself. The standalone gateway goes without: it gains nothing measurable, and all of
# the Kubernetes libraries would be compiled once more for it.
.PHONY: pgo
pgo: build ## measure anew what the compiler optimises the proxy for
	rm -rf .bench/profile
	$(GO) run ./bench -scenario 'h1,h1tls,h2,h3,grpc-unary,routes-1000,features,handshake-full' -peers gatehouse -rounds 1 -duration 10s -profile .bench/profile
	$(GO) tool pprof -proto -output cmd/gatehouse-proxy/default.pgo .bench/profile/*.pprof

# A Kubernetes cluster of local processes (test/cluster), and the official Gateway API conformance suite in one (test/conformance).
CLUSTER_STATE ?= .state/cluster
PROFILES ?=
RUNS     ?= 1

bin/gatehouse-cluster: FORCE
	@mkdir -p bin
	cd test/cluster && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o ../../bin/gatehouse-cluster ./cmd/gatehouse-cluster

bin/conformance: FORCE
	@mkdir -p bin
	cd test/conformance && $(GO) build -o ../../bin/conformance ./cmd/conformance

.PHONY: FORCE
FORCE:

.PHONY: cluster-up
cluster-up: build bin/gatehouse-cluster ## start a Kubernetes cluster of local processes, for tests; as root
	cd test/cluster && ../../bin/gatehouse-cluster --state $(abspath $(CLUSTER_STATE)) up --image gatehouse=$(CURDIR)/bin/gatehouse --image gatehouse-proxy=$(CURDIR)/bin/gatehouse-proxy

.PHONY: cluster-down
cluster-down: bin/gatehouse-cluster ## end it
	bin/gatehouse-cluster --state $(abspath $(CLUSTER_STATE)) down

.PHONY: cluster-test
cluster-test: ## test the test cluster itself
	cd test/cluster && CGO_ENABLED=0 $(GO) test -trimpath ./...

.PHONY: conformance
conformance: build bin/gatehouse-cluster bin/conformance ## run the Gateway API conformance suite in such a cluster: PROFILES= RUNS=1; as root
	bin/conformance -profiles '$(PROFILES)' -runs $(RUNS) -report docs/conformance/report.yaml

.PHONY: generate
generate: ## make anew what is made of other files: deep copies, CRDs, deploy/install.yaml
	$(TOOL) controller-gen object crd paths=./controller/apis/... output:crd:dir=deploy/crds
	cp deploy/crds/gatehouse.dev_*.yaml deploy/helm/gatehouse/crds/
	cp deploy/crds/gatehouse.dev_*.yaml controller/source/schema/crds/
	{ echo '# Made from deploy/helm/gatehouse by `make generate`: change the chart, not this file.' && \
	  $(TOOL) helm template gatehouse deploy/helm/gatehouse --namespace gatehouse-system --include-crds --set createNamespace=true; \
	} >deploy/install.yaml.new
	mv deploy/install.yaml.new deploy/install.yaml

.PHONY: microbench
microbench: ## run the Go benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin coverage.out .conformance
