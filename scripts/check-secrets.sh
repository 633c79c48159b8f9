#!/bin/sh
# Looks for secrets that were committed, and for log calls that are handed one. That no secret is
# shown at run time is held by every scenario of tests/plane and by tests/agent.
set -eu
cd "$(dirname "$0")/.."
found=0

look() { # look WHAT REGEX PATHS...: fails where it matches
    what=$1 regex=$2
    shift 2
    if git grep -nIE "$regex" -- "$@"; then
        echo "check-secrets: $what" >&2
        found=1
    fi
}
look "a private key" '^-----BEGIN ([A-Z]+ )?PRIVATE KEY' .
# Keys that tests make up stand in tests/ and src/, where nobody puts a real one.
look "an agent key of the live kind" 'bkpy_live_([A-Za-z0-9]{32}|[a-f0-9]{64})' . ':!tests' ':!src'
look "a log call that exposes a secret" '(trace|debug|info|warn|error)!\(.*\.expose' src

[ $found = 0 ] && echo "no secret in the tree"
exit $found
