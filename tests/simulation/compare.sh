#!/bin/sh
# How fast the simulation is, compared with that of another commit: both run the same seeds in turn, on one thread, and what
# counts is the time of the processor, because a machine that others use too has no seconds of its own.
#
#   tests/simulation/compare.sh BASE [SEEDS] [ROUNDS]
#
# BASE is a commit, which is built first, or a `simulate` that is built already. Prints for each round the seconds of both and
# their ratio, and in the end the ratio of the sums: 2 means twice the seeds a second. Fails if one of them cannot run the seeds
# clean: then they did not do the same work.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
base=${1:?"a commit, or the path of a simulate"}
seeds=${2:-0..1000}
rounds=${3:-3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
target=${CARGO_TARGET_DIR:-$root/target}
build="cargo build --quiet --locked --profile simulate --package simulation"
(cd "$root" && $build)
if [ ! -x "$base" ]; then
    mkdir "$scratch/source"
    (cd "$root" && git archive "$base") | tar -xmf - -C "$scratch/source"
    # Kept, so that a second comparison with the same commit need not build it again.
    (cd "$scratch/source" && CARGO_TARGET_DIR=$target/compare $build)
    base=$target/compare/simulate/simulate
fi

# The processor's seconds that a program takes for the seeds.
seconds() {
    sh -c '"$0" --seeds "$1" --jobs 1 --partial --quiet >&2 || exit 1; times' "$1" "$seeds" >"$scratch/times" || {
        echo "$1 does not run seeds $seeds clean" >&2
        return 1
    }
    # The second line is of the children: minutes and seconds, of the user and of the system.
    tail -n 1 "$scratch/times" | awk '{ split($1, u, /[ms]/); split($2, s, /[ms]/)
        print u[1] * 60 + u[2] + s[1] * 60 + s[2] }'
}

printf 'round  before  now  ratio\n'
round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    before=$(seconds "$base")
    now=$(seconds "$target/simulate/simulate")
    echo "$round $before $now" >>"$scratch/all"
    awk -v round="$round" -v before="$before" -v now="$now" \
        'BEGIN { printf "%5d  %6.1f  %6.1f  %.2f\n", round, before, now, before / now }'
done
awk '{ before += $2; now += $3 } END { printf "all    %6.1f  %6.1f  %.2f\n", before, now, before / now }' "$scratch/all"
