# The service as an image with nothing in it but the service, the certificates of the public authorities, and a program
# that asks whether it is well. Nothing in it can be run by an intruder, and nothing needs to be written.
#
#   docker build -t tenantflow --build-arg VERSION="$(git describe --tags --always)" .

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .

# Only now, so that a new commit does not make the layers above anew.
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=unknown
ARG COMMIT=unknown
ARG DATE=unknown
# Without cgo: there is no C library in the image. GOFLAGS: the work tree's version control is not copied.
ENV CGO_ENABLED=0 GOFLAGS=-buildvcs=false
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -o /out/ \
        -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT -X main.date=$DATE" \
        ./cmd/tenantflow ./deploy/probe

FROM scratch
# For TLS to Kafka and the stores; SSL_CERT_FILE names others.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/tenantflow /out/probe /
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# The default, 127.0.0.1:8080, would be the container's own. Publish the port with care.
ENV TENANTFLOW_HTTP_ADDR=:8080
EXPOSE 8080
# Alive, not ready: whoever replaces unhealthy containers must not do so because a store is down.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/probe", "http://127.0.0.1:8080/livez"]
ENTRYPOINT ["/tenantflow"]
CMD ["run"]
