# syntax=docker/dockerfile:1
# SPDX-License-Identifier: Apache-2.0
# For those who have Docker, podman or buildah; `make image` makes the same
# layout without. For several architectures:
#   docker buildx build --platform linux/amd64,linux/arm64 -t NAME --push .

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
    -ldflags "-s -w ${VERSION:+-X github.com/orb8/orb8/internal/version.release=$VERSION}" \
    -o /out/ ./cmd/orb8 ./cmd/orb8-agent

# glibc, not static: the GPU's library is opened at run time.
FROM gcr.io/distroless/base-debian12
ARG VERSION=
LABEL org.opencontainers.image.title="orb8-agent" \
      org.opencontainers.image.description="eBPF observability for Kubernetes on GPU clusters: the agent of a node" \
      org.opencontainers.image.source="https://github.com/orb8/orb8" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/orb8 /out/orb8-agent /usr/bin/
# Root, for its capabilities; which of them, the manifests say.
USER 0:0
ENTRYPOINT ["/usr/bin/orb8-agent"]
