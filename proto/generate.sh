#!/bin/sh
# Generates the Go code beside every .proto. Plugins come from the Go module
# proxy at the versions below; protoc comes from Debian (protobuf-compiler).
set -eu
cd "$(dirname "$0")/.."
plugins=$PWD/bin/protoc-plugins
mkdir -p "$plugins"
command -v protoc >/dev/null || { echo "installing protobuf-compiler"; apt-get install -y -qq protobuf-compiler >/dev/null; }
[ -x "$plugins/protoc-gen-go" ] || GOBIN=$plugins go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.11
[ -x "$plugins/protoc-gen-go-grpc" ] || GOBIN=$plugins go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0
PATH=$plugins:$PATH protoc -I proto \
	--go_out=proto --go_opt=module=tripod.dev/tripod/proto \
	--go-grpc_out=proto --go-grpc_opt=module=tripod.dev/tripod/proto \
	$(cd proto && find . -name '*.proto' | sed 's|^\./||' | sort)
