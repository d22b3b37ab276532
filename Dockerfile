# The project's images, one target each: control-plane, server, client, lab-init.
#
# Where an image registry is within reach, `docker compose build` builds the
# programs inside. Where none is, scripts/images builds them on the host and
# packs them with the -host targets: these stand first, because the classic
# builder works through every stage down to its target.
ARG GO_IMAGE=golang:1.26.8
ARG HEADSCALE_IMAGE=headscale/headscale:0.29.3

FROM scratch AS server-base
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["server"]

FROM scratch AS client-base
USER 65532:65532
ENTRYPOINT ["client"]

# It mints keys with headscale's own command.
FROM ${HEADSCALE_IMAGE} AS lab-init-base
ENTRYPOINT ["/usr/local/bin/lab-init"]

FROM scratch AS control-plane-base
USER 65532:65532
ENTRYPOINT ["tailxds"]
CMD ["serve"]

FROM server-base AS server-host
COPY server /usr/local/bin/
FROM client-base AS client-host
COPY client /usr/local/bin/
FROM lab-init-base AS lab-init-host
COPY lab-init /usr/local/bin/
FROM control-plane-base AS control-plane-host
COPY tailxds /usr/local/bin/

FROM ${GO_IMAGE} AS build
WORKDIR /src
ENV CGO_ENABLED=0
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
COPY lab/init lab/init
RUN go build -trimpath -ldflags="-s -w" -o /out/ ./cmd/tailxds ./cmd/server ./cmd/client \
 && go build -trimpath -ldflags="-s -w" -o /out/lab-init ./lab/init

FROM control-plane-base AS control-plane
COPY --from=build /out/tailxds /usr/local/bin/
FROM server-base AS server
COPY --from=build /out/server /usr/local/bin/
FROM client-base AS client
COPY --from=build /out/client /usr/local/bin/
FROM lab-init-base AS lab-init
COPY --from=build /out/lab-init /usr/local/bin/
