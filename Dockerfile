# The project's images, one target each: server, client, lab-init, control-plane.
#
# `docker compose build` builds the programs in the first stage. Where no image
# registry is within reach, scripts/images builds them on the host, takes that
# stage out, and copies them from its context instead.
#
# VERSION is what the programs then say they are; there is no .git here to ask.
ARG GO_IMAGE=golang:1.26.8
ARG HEADSCALE_IMAGE=headscale/headscale:0.29.3

FROM ${GO_IMAGE} AS build
WORKDIR /src
ENV CGO_ENABLED=0
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
COPY lab/init lab/init
ARG VERSION=
RUN go build -trimpath -ldflags="-s -w -X github.com/tailxds/tailxds/internal/version.stamp=${VERSION}" -o /out/ ./cmd/tailxds ./cmd/server ./cmd/client \
 && go build -trimpath -ldflags="-s -w" -o /out/lab-init ./lab/init

FROM scratch AS server
COPY --from=build /out/server /usr/local/bin/
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["server"]

FROM scratch AS client
COPY --from=build /out/client /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["client"]

# It mints keys with headscale's own command, and leaves the client for the laptop.
FROM ${HEADSCALE_IMAGE} AS lab-init
COPY --from=build /out/lab-init /usr/local/bin/
COPY --from=build /out/client /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/lab-init"]

FROM scratch AS control-plane
ARG VERSION=
LABEL org.opencontainers.image.title="tailxds" \
      org.opencontainers.image.source="https://github.com/tailxds/tailxds" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /out/tailxds /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["tailxds"]
CMD ["serve"]
