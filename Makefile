# What one does with tailxds. The work is in scripts/; this is its front door.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Two cores and one engine: one thing after the other.
.NOTPARALLEL:

.PHONY: help lab lab-mend lab-down lab-test envoy-test grpc-test hostile-test page-test images test lint vuln unit bench k8s-test binaries

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

lab: ## bring up two regions joined by a tailnet, and say what to try
	@scripts/lab up

lab-mend: ## undo what `scripts/lab break` broke on purpose
	@scripts/lab mend

lab-down: ## remove the lab: containers, networks and volumes
	@scripts/lab down

test: lint unit envoy-test grpc-test hostile-test page-test lab-test k8s-test ## everything that CI runs

lint: ## golangci-lint with the import rules, actionlint, and shellcheck
	@scripts/lint

vuln: ## known vulnerabilities, from a database on the internet
	@"$$(scripts/tool govulncheck)" ./...

unit: ## unit tests, under the race detector and in random order
	@go test -race -shuffle=on ./...
	@go -C bench test ./...

envoy-test: ## real Envoys beside the control plane in network namespaces: needs root, and no Docker
	@go -C integration test -count=1 ./envoys

grpc-test: ## gRPC clients in Go, Python, Node.js and Java, those that this machine has: needs no Docker
	@scripts/grpc-test

hostile-test: ## clients that flood, stall and lie, held against bounds on memory and CPU: needs no Docker
	@go -C integration test -count=1 ./hostile

page-test: ## the live page in Chromium, on real Envoys and on a made-up tailnet: needs root, and no Docker
	@go -C integration test -count=1 ./page

lab-test: ## the integration tests on a lab of their own
	@scripts/lab-test

k8s-test: ## the same on two Kubernetes clusters, from packages
	@scripts/k8s-test

bench: ## measure it beside what one would use instead, and write docs/benchmarks.md: some minutes of an idle machine
	@go -C bench run . -o ../docs/benchmarks.md

images: ## make or pull the images that the lab needs
	@scripts/engine && scripts/images

binaries: ## build the programs into bin/
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/tailxds/tailxds/internal/version.stamp=$$(scripts/version)" -o bin/ ./cmd/...
