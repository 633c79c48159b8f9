#!/bin/sh
# Installs what the tests need beside rustup's toolchain: Debian packages that are missing, and a
# Python environment of the tests' own under .tools/venv. Fails loudly, changes nothing that is there.
set -eu
cd "$(dirname "$0")/.."

venv=.tools/venv
requirements=tests/plane/requirements.txt
missing=

want() { # want TOOL PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
want python3 python3
want systemd-analyze systemd
want cc gcc
# The engines that are backed up for real, and their dump tools.
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
want mariadbd mariadb-server
want mariadb-dump mariadb-client
want redis-server redis-server
want redis-cli redis-tools
# Dumps inside containers, with an engine that the tests start for themselves.
want dockerd docker.io
want docker docker.io
# The module can be there without what makes environments: Debian splits it off.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "test-deps: missing, and only root on Debian can be helped:$missing" >&2
        exit 1
    fi
    echo "test-deps: installing$missing"
    apt-get update -qq
    # The tests start servers of their own: a package must not start one of the machine's.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# Made anew only when the list of packages changed.
stamp="$venv/installed"
if ! cmp -s "$requirements" "$stamp"; then
    echo "test-deps: making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$stamp"
fi
