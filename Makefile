# Everything a person or CI does here. `make help` lists the targets: the text behind the two hashes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Which broker `stack` and `demo` use: embedded, or apache for a real Apache Kafka.
KAFKA ?= embedded
export KAFKA

# For `bench`, for example BENCHFLAGS='--runs 5 --only tenantflow,kafka_engine'.
BENCHFLAGS ?=

# For `trouble`: how often each trouble comes.
TROUBLE_ROUNDS ?= 20

LOCAL := $(CURDIR)/.local
LOCALSTACK := $(LOCAL)/bin/localstack

# The version is in the file's name, so a new pin is installed and an old one is reused.
LINT_VERSION := v2.15.0
LINT := $(LOCAL)/bin/golangci-lint-$(LINT_VERSION)

# What the binary says about itself. Outside a git work tree it says "unknown".
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
DATE := $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build $(LOCALSTACK) ## the whole thing from nothing: stack, a million events, kills, a report (KAFKA=apache for a real Kafka)
	exec $(LOCALSTACK) demo --tenantflow $(CURDIR)/bin/tenantflow

.PHONY: test
test: toolchain lint manifests analyzer engines ## lint, then all tests with the race detector against real engines (what CI calls)
	go test -race -p 2 -parallel 3 -timeout 40m ./...

.PHONY: build
build: ## build bin/tenantflow
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/tenantflow ./cmd/tenantflow

.PHONY: stack
stack: $(LOCALSTACK) ## run the local stack in the foreground; writes .local/stack.env when ready (KAFKA=apache for a real Kafka)
	exec $(LOCALSTACK) up

.PHONY: bench
bench: build $(LOCALSTACK) ## measure the service beside ClickHouse's Kafka engine, its insert limit, plain counting and itself without guarantees, and the analyses of a made year (20 minutes)
	exec $(LOCALSTACK) bench --tenantflow $(CURDIR)/bin/tenantflow $(BENCHFLAGS)

.PHONY: chaos
chaos: ## kill, freeze and cut everything at random, and judge the result
	@echo "make chaos: this work comes later" >&2; exit 1

.PHONY: verify-live
verify-live: ## verify 40 times while the whole service is killed 20 times: nothing may be found (half an hour)
	TENANTFLOW_TEST_VERIFY_RUNS=20 go test -timeout 40m -count 1 -v -run TestVerify_KilledServiceHasNoFinding ./cmd/tenantflow

.PHONY: reserve
reserve: ## 64 callers reserve for 1,000 users at their limits while service and store are killed: never one beyond (three minutes)
	TENANTFLOW_TEST_RESERVING_USERS=1000 TENANTFLOW_TEST_RESERVATION_KILLS=10 go test -timeout 30m -count 1 -v -run TestReservation_KillsGrantNothingBeyondTheLimit ./consumers

.PHONY: trouble
trouble: ## everything that may happen to a store happens to a running service, and nothing is lost (over two hours; TROUBLE_ROUNDS=20 times each)
	TENANTFLOW_TEST_TROUBLE_ROUNDS=$(TROUBLE_ROUNDS) TENANTFLOW_TEST_TROUBLE_SECONDS=15 go test -timeout 4h -count 1 -v -run TestRun_NothingIsLostInTrouble ./cmd/tenantflow

.PHONY: backfill
backfill: ## replay two million events of which 3 % are missing, killed 50 times, beside live traffic (half an hour)
	TENANTFLOW_TEST_BACKFILL_EVENTS=2000000 TENANTFLOW_TEST_BACKFILL_KILLS=50 go test -timeout 2h -count 1 -v -run TestReplay_BackfillUnderKills ./internal/replay

# Pinned, because axe's rules decide. Chromium is Debian's, or CHROMIUM names another one.
PAGE_PACKAGES := playwright-core@1.65.1 axe-core@4.14.1

.PHONY: page
page: ## look at the operations page in headless Chromium: accessibility, layout, docs/images (needs Node.js; installs Chromium)
	@if ! command -v "$${CHROMIUM:-chromium}" >/dev/null; then \
		echo "installing Chromium (apt-get install chromium)"; \
		apt-get update -qq </dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core </dev/null >/dev/null || \
		{ echo "no Chromium: install it or set CHROMIUM, then run make page again" >&2; exit 1; }; \
	fi
	npm install --prefix $(LOCAL)/page --no-save --no-package-lock --no-audit --no-fund --silent $(PAGE_PACKAGES)
	TENANTFLOW_TEST_NODE_MODULES=$(LOCAL)/page/node_modules go test -tags page -timeout 10m -count 1 -v -run TestPage_InABrowser ./internal/operations

.PHONY: lint
lint: $(LINT) ## check formatting and run the linters of .golangci.yml
	$(LINT) run --timeout 10m ./...
	cd deploy/kubernetes/validate && $(LINT) run --timeout 10m ./...

# A module of its own, which ./... leaves out: what validates the manifests is no dependency of the service.
.PHONY: manifests
manifests: ## render deploy/kubernetes and validate it against the types of the Kubernetes API
	cd deploy/kubernetes/validate && go test ./...

# systemd-analyze, by which ./deploy checks the units. Nothing of systemd is started.
.PHONY: analyzer
analyzer:
	@if ! command -v systemd-analyze >/dev/null; then \
		echo "installing systemd-analyze (apt-get install systemd)"; \
		apt-get update -qq </dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq systemd </dev/null >/dev/null || \
		{ echo "no systemd-analyze: install systemd, then run make test again" >&2; exit 1; }; \
	fi

# Not a part of `test`: it asks the vulnerability database of the Go project over the network, and its answer changes by the day.
VULN := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: vuln
vuln: ## look for known vulnerabilities in the code that is called, and in the standard library (asks vuln.go.dev)
	go run $(VULN) ./...

# What a release is made of. Nothing is published.
PLATFORMS := linux/amd64 linux/arm64
SBOM := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

.PHONY: release
release: ## build static binaries, checksums and a list of what is in them into dist/
	rm -rf dist && mkdir -p dist
	for p in $(PLATFORMS); do \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build -trimpath -ldflags '-s -w $(LDFLAGS)' -o dist/tenantflow-$${p%/*}-$${p#*/} ./cmd/tenantflow; \
	done
	go run $(SBOM) app -json -output dist/tenantflow.cdx.json -main cmd/tenantflow -licenses -assert-licenses .
	cd dist && sha256sum tenantflow* > SHA256SUMS

# The engines the tests start: ClickHouse, Apache Kafka, PostgreSQL, Redis; and promtool. Installs what is missing and says so.
.PHONY: engines
engines: $(LOCALSTACK)
	$(LOCALSTACK) install

# The race detector needs a C compiler, which a bare machine lacks.
.PHONY: toolchain
toolchain:
	@if ! command -v "$$(go env CC)" >/dev/null; then \
		echo "installing a C compiler for the race detector (apt-get install gcc libc6-dev)"; \
		apt-get update -qq </dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev </dev/null >/dev/null || \
		{ echo "no C compiler: install gcc and libc6-dev, then run make test again" >&2; exit 1; }; \
	fi

# Built aside and moved into place, because the old one may be running. Always asked: the go command knows best
# whether anything changed.
.PHONY: $(LOCALSTACK)
$(LOCALSTACK):
	@mkdir -p $(LOCAL)/bin $(LOCAL)/build
	go build -o $(LOCAL)/build/localstack.make ./cmd/localstack
	@mv -f $(LOCAL)/build/localstack.make $@

$(LINT):
	@mkdir -p $(LOCAL)/bin $(LOCAL)/build/lint
	@echo "installing golangci-lint $(LINT_VERSION) into .local/bin (go install; a few minutes, once)"
	GOBIN=$(LOCAL)/build/lint go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv -f $(LOCAL)/build/lint/golangci-lint $@
