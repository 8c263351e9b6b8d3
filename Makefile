# Tripod. `make help` explains every target.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
CONTROLLER_GEN := $(GO) run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0
STATIC := CGO_ENABLED=0

.PHONY: help
help: ## Explain every target
	@awk 'BEGIN{FS=":.*## "} /^[a-z-]+:.*## /{printf "  make %-14s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build every program into bin/
	$(STATIC) $(GO) build -o bin/ ./cmd/...

.PHONY: generate
generate: ## Regenerate deepcopy, CRDs and protobuf code beside their sources
	$(CONTROLLER_GEN) object paths=./hub/api/v1alpha1
	$(CONTROLLER_GEN) crd:crdVersions=v1 output:crd:artifacts:config=hub/api/crds paths=./hub/api/v1alpha1
	./proto/generate.sh
