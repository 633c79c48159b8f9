#!/bin/sh
# Builds the fuzz targets on the toolchain of this project and runs one after the other:
#   FUZZ_SECONDS=60 fuzz/run.sh [TARGET...]
#   FUZZ_MERGE=1 fuzz/run.sh [TARGET...]     instead: what was found before, minimised, into fuzz/corpus
# What cargo-fuzz does with a nightly compiler, by flags that the stable one takes too. Ends with 1, and with
# the input at fault in fuzz/artifacts/, when a target panics, hangs or takes too much memory.
set -eu
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-60}
# An object or a state file takes hundreds of bytes a record: beyond this inputs are only slow.
max_len=16384
known=$(sed -n 's/^path = "fuzz_targets\/\([a-z_]*\)\.rs"$/\1/p' Cargo.toml)
targets=${*:-$known}
for target in $targets; do
    if ! echo "$known" | grep -qx -- "$target"; then
        echo "fuzz: no target is called $target; there are:" $known >&2
        exit 64
    fi
done
if ! command -v g++ >/dev/null 2>&1; then
    echo "fuzz: libFuzzer is built with g++: install it (Debian: apt-get install g++)" >&2
    exit 69
fi

host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags reach the targets and their dependencies, not build scripts and macros.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    CARGO_TARGET_DIR=target cargo build --release --target "$host" $(printf -- '--bin %s ' $targets)

# What is found stays under target/: only what FUZZ_MERGE kept is committed.
for target in $targets; do
    log=target/found/$target.log
    mkdir -p "corpus/$target" "artifacts/$target" "target/found/$target"
    status=0
    if [ -n "${FUZZ_MERGE:-}" ]; then
        set -- -set_cover_merge=1 -use_counters=0 "corpus/$target" "target/found/$target"
    else
        set -- -max_total_time="$seconds" -print_final_stats=1 "target/found/$target" "corpus/$target"
    fi
    # tokio's and redb's threads are none of libFuzzer's: a leak would be told by the limit of memory.
    "target/$host/release/$target" -rss_limit_mb=512 -timeout=10 -max_len=$max_len -detect_leaks=0 \
        -artifact_prefix="artifacts/$target/" "$@" >"$log" 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        tail -n 40 "$log" >&2
        echo "fuzz: $target ended with $status; its input is in fuzz/artifacts/$target, its log is fuzz/$log" >&2
        exit 1
    fi
    if [ -n "${FUZZ_MERGE:-}" ]; then
        echo "fuzz: $target: $(ls "corpus/$target" | wc -l) inputs in the corpus"
    else
        executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
        coverage=$(sed -n 's/.*DONE *cov: *\([0-9]*\) ft: *\([0-9]*\) .*/\1 edges, \2 features/p' "$log")
        echo "fuzz: $target: ${executions:?} executions, ${coverage:?} covered, $memory MB at most"
    fi
done
