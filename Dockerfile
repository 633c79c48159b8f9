# The agent in a container: built here, run as its own user, with the clients of the databases.
#
#   docker build -t backupy-agent .
#   docker run -d --name agent -v agent-state:/var/lib/backup-agent \
#     -e BACKUPY_SERVER_URL=https://control.example -e BACKUPY_AGENT_KEY_FILE=/run/secrets/agent-key \
#     -v ./agent-key:/run/secrets/agent-key:ro backupy-agent

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The commit is shown by `version`; a build context without .git may hand it in.
ARG BACKUPY_COMMIT=
ENV BACKUPY_COMMIT=$BACKUPY_COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked && cp target/release/backupy-agent /usr/local/bin/

FROM debian:bookworm-slim
# What dumps databases. SQLite needs none of them.
ARG DUMP_TOOLS="postgresql-client mariadb-client redis-tools"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates $DUMP_TOOLS \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 backupy-agent \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/backup-agent \
       --shell /usr/sbin/nologin backupy-agent \
    && install -d -m 0700 -o backupy-agent -g backupy-agent \
       /var/lib/backup-agent /var/lib/backupy-control-plane /run/backupy
COPY --from=build /usr/local/bin/backupy-agent /usr/local/bin/backupy-agent
USER 10001:10001
VOLUME /var/lib/backup-agent
# Metrics stay on loopback unless somebody says otherwise; logs are JSON where nobody looks on.
ENV BACKUPY_LOG_FORMAT=json
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["backupy-agent", "health-check"]
ENTRYPOINT ["backupy-agent"]
CMD ["run"]
