# SPDX-License-Identifier: Apache-2.0
# `make` or `make help` lists what there is to do.

GO      ?= go
BIN     := bin
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
GOFUMPT := $(GO) tool -modfile=tools/gofumpt/go.mod gofumpt
STATICCHECK := $(GO) tool -modfile=tools/staticcheck/go.mod staticcheck
KUSTOMIZE := $(GO) tool -modfile=tools/kustomize/go.mod kustomize

.DEFAULT_GOAL := help
.PHONY: help run build test unit fuzz smoke-test monitoring-test kernel-test test-gpu e2e-test e2e-test-all bench image image-all manifests check-manifests dashboards generate check-generated lint fmt verify-setup test-deps e2e-deps generate-deps clean

help: ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build, and show this machine's connections live (root)
	$(SUDO) $(BIN)/orb8 --standalone flows --watch

build: ## build bin/orb8 and bin/orb8-agent (needs only Go)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/...

test: test-deps ## install by apt what the tests need, and run them all (root)
	$(SUDO) env "PATH=$$PATH" ORB8_REQUIRE_KERNEL=1 $(GO) test -count=1 -p 1 ./...
	$(MAKE) smoke-test

unit: ## the tests that need neither root nor a kernel, with the race detector
	$(GO) test -race ./api/... ./internal/cli/... ./internal/client/... ./internal/enrich/... ./internal/event/... ./internal/filter/... ./internal/kubelet/... ./internal/observer/... ./internal/pcapng/... ./internal/relay/... ./internal/render/... ./internal/store/... ./internal/wire/...
	$(GO) test -C tools/image -race .
	$(GO) test -C tools/monitoring .

FUZZTIME ?= 20s
fuzz: ## run every fuzz target for FUZZTIME, 20s unless told (root)
	$(SUDO) env "PATH=$$PATH" ORB8_REQUIRE_KERNEL=1 test/fuzz/run.sh $(FUZZTIME)

smoke-test: build ## start the agent as a user would and ask it (root)
	$(SUDO) env "PATH=$$PATH" test/smoke/smoke.sh $(BIN)

monitoring-test: test-deps ## dashboards and alerts on a Prometheus 3, which it builds once, beside Debian's (root)
	mkdir -p dist/prometheus3
	$(GO) build -C tools/prometheus -mod=mod -tags remove_all_sd -o "$(CURDIR)/dist/prometheus3/" github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
	$(SUDO) env "PATH=$$PATH" ORB8_REQUIRE_KERNEL=1 $(GO) test -count=1 ./test/monitoring
	$(SUDO) env "PATH=$$PATH" ORB8_REQUIRE_KERNEL=1 "ORB8_PROMETHEUS=$(CURDIR)/dist/prometheus3/prometheus" $(GO) test -count=1 ./test/monitoring

kernel-test: ## the tests that need a kernel on Debian's 6.1 and 6.12, in QEMU
	test/kernels/run.sh

PROCESSES ?= 3
test-gpu: ## on a machine with an NVIDIA GPU that nobody uses: PROCESSES that share it, and what the agent tells of them, into docs/gpu.md (root)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/test-gpu ./test/gpu
	$(SUDO) $(BIN)/test-gpu -processes $(PROCESSES)

e2e-test: e2e-deps build image ## the matrix on a real Kubernetes of three nodes, which it builds once and caches (root)
	$(SUDO) env "PATH=$$PATH" test/e2e/run.sh ci

e2e-test-all: e2e-deps build image ## the same, all of it in each configuration of the cluster (root)
	$(SUDO) env "PATH=$$PATH" test/e2e/run.sh all

bench: ## measure the tap and the agent beside their baselines: one table (root)
	$(SUDO) env "PATH=$$PATH" $(GO) run ./test/bench

IMAGE   ?= registry.local/orb8-agent:dev
VERSION ?=
image: ## write dist/orb8-agent.tar, the image for this architecture: ctr, docker load (needs only Go)
	$(GO) run -C tools/image . -root "$(CURDIR)" -ref $(IMAGE) -version "$(VERSION)"

image-all: ## write dist/orb8-agent, an OCI layout for amd64 and arm64
	$(GO) run -C tools/image . -root "$(CURDIR)" -ref $(IMAGE) -version "$(VERSION)" -arch amd64,arm64

manifests: ## render deploy/overlays/default into deploy/daemonset.yaml
	@{ echo "# SPDX-License-Identifier: Apache-2.0"; \
	echo "# Made of deploy/overlays/default by make manifests. Do not edit."; \
	$(KUSTOMIZE) build deploy/overlays/default; } >deploy/daemonset.yaml.part
	@mv deploy/daemonset.yaml.part deploy/daemonset.yaml

check-manifests: ## fail if a manifest is wrong, or deploy/daemonset.yaml is not what is made of its overlay
	$(GO) test -count=1 ./deploy

dashboards: ## write Grafana's dashboards and Prometheus' alerts into deploy/
	$(GO) run -C tools/monitoring . -root "$(CURDIR)"

generate: generate-deps ## regenerate the kernel objects and the API
	$(GO) generate ./...

check-generated: generate dashboards ## fail if what is committed is not what is generated
	@git diff --exit-code --stat -- '*.pb.go' '*_bpfel.go' '*_bpfel.o' deploy/grafana deploy/prometheus deploy/monitoring || { echo "generated files are not up to date: commit the result of make generate dashboards"; exit 1; }

lint: ## format, vet, staticcheck
	@out=$$($(GOFUMPT) -l .); [ -z "$$out" ] || { echo "not formatted (make fmt):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -C tools/image .
	$(GO) vet -C tools/monitoring .
	$(STATICCHECK) ./...

fmt: ## format the Go code
	$(GOFUMPT) -w .

verify-setup: ## say what this machine has of what orb8 needs
	@test/smoke/verify-setup.sh

# Debian and Ubuntu; elsewhere install these by hand.
TEST_PACKAGES     := iproute2 iperf3 nftables ethtool tshark openssl gcc libc6-dev
GENERATE_PACKAGES := clang-19 llvm-19 libbpf-dev linux-libc-dev protobuf-compiler
E2E_PACKAGES      := libseccomp-dev pkg-config gcc libc6-dev busybox-static iproute2 iptables nftables conntrack openssl python3 tshark

test-deps:
	@test/smoke/apt.sh $(TEST_PACKAGES)
	@test/monitoring/fetch.sh

e2e-deps:
	@test/smoke/apt.sh $(E2E_PACKAGES)

generate-deps:
	@test/smoke/apt.sh $(GENERATE_PACKAGES)

clean:
	rm -rf $(BIN) dist
