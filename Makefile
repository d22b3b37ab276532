# Targets for contributors. The work is in scripts/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Targets share one Docker engine and measure time, so they run one after the other.
.NOTPARALLEL:

.PHONY: help lab lab-mend lab-down lab-test envoy-test grpc-test hostile-test page-test images test lint vuln unit bench k8s-test binaries

help: ## show this
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ On any machine with Go, and with Docker for the lab:

lab: ## bring up two regions joined by a tailnet, and print what to try
	@scripts/lab up

lab-mend: ## undo what `scripts/lab break` broke on purpose
	@scripts/lab mend

lab-down: ## remove the lab: containers, networks and volumes
	@scripts/lab down

unit: ## unit tests, under the race detector and in random order
	@go test -race -shuffle=on ./...
	@go -C bench test ./...

hostile-test: ## clients that flood, stall and lie, with bounds on memory and CPU: on Linux
	@go -C integration test -count=1 ./hostile

lint: ## golangci-lint with the import rules, actionlint, and shellcheck
	@scripts/lint

vuln: ## known vulnerabilities, from a database on the internet
	@"$$(scripts/tool govulncheck)" ./...

binaries: ## build the programs into bin/
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/tailxds/tailxds/internal/version.stamp=$$(scripts/version)" -o bin/ ./cmd/...

##@ With other projects' programs, which are fetched or built first where they are missing (scripts/offline), on Linux:

test: lint unit envoy-test grpc-test hostile-test page-test lab-test k8s-test ## everything that CI runs

envoy-test: ## real Envoys beside the control plane in network namespaces: needs root, and no Docker
	@go -C integration test -count=1 ./envoys

grpc-test: ## gRPC clients in Go, Python, Node.js and Java, those that this machine has: needs no Docker
	@scripts/grpc-test

page-test: ## the live page in Chromium, on real Envoys and on a made-up tailnet: needs root, and no Docker
	@go -C integration test -count=1 ./page

lab-test: ## the integration tests on a lab of their own
	@scripts/lab-test

k8s-test: ## the same on two Kubernetes clusters, from packages
	@scripts/k8s-test

bench: ## measure it beside what one would use instead: some ten minutes of an idle machine
	@go -C bench run .

images: ## pull or make the images that the lab needs
	@scripts/engine && scripts/images
