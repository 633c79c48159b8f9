#!/bin/sh
# Holds config/*.service against systemd's own judgement: `verify` without a word, exposure 2.0 or
# better, and sysusers and tmpfiles that parse. BINARY stands in for the installed one, because
# systemd looks whether it can be executed.
set -eu
cd "$(dirname "$0")/.."

binary=$(realpath "${1:?usage: check-units.sh BINARY}")
# systemd counts in tenths.
worst_exposure=20
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

unit="$root/backupy-agent.service"
sed "s#/usr/bin/backupy-agent#$binary#" config/backupy-agent.service > "$unit"
grep -q "ExecStart=$binary run" "$unit" || { echo "check-units: the unit does not start the binary" >&2; exit 1; }

verify() { # verify WHAT
    words=$(systemd-analyze verify "$unit" 2>&1) || { echo "check-units: $1: $words" >&2; exit 1; }
    [ -z "$words" ] || { echo "check-units: $1: $words" >&2; exit 1; }
}
verify "the unit"

report=$(systemd-analyze security --offline=true --threshold=$worst_exposure "$unit") || {
    echo "$report" | grep -v '✓' >&2
    exit 1
}
echo "$report" | tail -1

# Every line that the drop-in offers must be one that systemd takes.
mkdir "$unit.d"
sed 's/^#\([A-Z][A-Za-z]*=\)/\1/' config/drop-ins/databases.conf > "$unit.d/databases.conf"
grep -q '^SupplementaryGroups=' "$unit.d/databases.conf"
verify "the drop-in"

mkdir -p "$root/image/etc" "$root/image/var/lib"
cp /etc/os-release "$root/image/etc/"
systemd-sysusers --root="$root/image" "$PWD/config/sysusers.d/backupy-agent.conf" 2>/dev/null
grep -q '^backupy-agent:' "$root/image/etc/passwd"
systemd-tmpfiles --root="$root/image" --create "$PWD/config/tmpfiles.d/backupy-agent.conf"
[ -d "$root/image/etc/backupy-agent" ]
echo "the unit, its drop-in, sysusers and tmpfiles are in order"
