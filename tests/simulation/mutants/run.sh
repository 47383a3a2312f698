#!/bin/sh
# Does the simulation bite? Applies each fault of this directory to a scratch copy of the sources, runs seeds until a
# rule breaks, and prints: fault, rule that caught it, seeds needed. Fails if a fault is found by nothing.
#
#   tests/simulation/mutants/run.sh [SEEDS] [NAME…]
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
seeds=${1:-10000}
[ $# -gt 0 ] && shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
# Built for a quick turn: only what is being judged is optimised.
build="cargo build -q -p simulation"
for package in worker-drain-plan simulation ecs-emulator; do
    build="$build --config profile.dev.package.$package.opt-level=1"
done
# The build directory may be kept from one run to the next; the sources may not, and must be newer than what was built.
target=${MUTANTS_TARGET:-$scratch/target}
mkdir -p "$scratch/source"
(cd "$root" && git ls-files -z | tar --null -T - -cf -) | tar -xmf - -C "$scratch/source"
# What the simulation does not drive is left out: each fault would have it built again.
leave_out() {
    file=$scratch/source/controller/src/$1
    shift
    for module in "$@"; do
        grep -q "^pub mod $module;\$" "$file" || { echo "$file has no module $module: leave out what it has" >&2; exit 1; }
        sed -i "/^pub mod $module;\$/d" "$file"
    done
}
leave_out lib.rs cli operator settings
leave_out record/mod.rs api_server file pages resource
survivors=0
before=
printf '| fault | rule that caught it | seeds needed |\n|---|---|---|\n'
for patch in "$root"/tests/simulation/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    (cd "$scratch/source" && git apply "$patch" 2>/dev/null || patch -s -p1 <"$patch")
    if ! (cd "$scratch/source" && CARGO_TARGET_DIR=$target $build) \
        >"$scratch/log" 2>&1; then
        printf '| %s | does not build | |\n' "$name"
        cat "$scratch/log" >&2
        survivors=$((survivors + 1))
    elif sum=$(cksum <"$target/debug/simulate") && [ "$sum" = "$before" ]; then
        printf '| %s | is not in what was built | |\n' "$name"
        survivors=$((survivors + 1))
    else
        before=$sum
        found=$("$target/debug/simulate" --seeds "0..$seeds" --quiet --partial | head -n 1)
        if [ -n "$found" ]; then
            printf '%s\n' "$found" | awk -F '\t' -v name="$name" '{ printf "| %s | %s | %d |\n", name, $2, $1 + 1 }'
        else
            printf '| %s | none | over %s |\n' "$name" "$seeds"
            survivors=$((survivors + 1))
        fi
    fi
    (cd "$scratch/source" && patch -s -R -p1 <"$patch")
done
[ "$survivors" -eq 0 ]
