#!/bin/sh
# Generates the Go of the .proto files beside it. Needs protoc (Debian:
# protobuf-compiler); the plugins are pinned in go.mod.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
PATH="$bin:$PATH" protoc -I../.. \
	--go_out=../.. --go_opt=paths=source_relative \
	--go-grpc_out=../.. --go-grpc_opt=paths=source_relative \
	../../orb8/v1/*.proto
# Which protoc it was must not make the check fail.
sed -i '/^\/\/ *.*protoc  *v/d; /^\/\/ - protoc  *v/d' ./*.pb.go
