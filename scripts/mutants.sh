#!/usr/bin/env bash
# Takes safeguards away one by one and expects a test to notice. Each patch in integration/mutants says what it takes
# away, which test is to fail, and which packages have binaries that the test runs. With arguments, only the patches of
# these names.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$PWD/target/mutants/tree
export CARGO_TARGET_DIR=$PWD/target/mutants/build CARGO_INCREMENTAL=0 RUST_BACKTRACE=0
mkdir -p target/mutants
exec 9>target/mutants/lock
flock --nonblock 9 || { echo "it is running already" >&2; exit 1; }
git worktree remove --force "$tree" 2>/dev/null || true
git worktree prune
git worktree add --quiet --detach "$tree" HEAD
trap 'git worktree remove --force "$tree"' EXIT

survived=0
patches=("$@")
[ $# -gt 0 ] || mapfile -t patches < <(cd integration/mutants && ls ./*.patch | sed 's|^\./||; s|\.patch$||')
for name in "${patches[@]}"; do
    patch=$PWD/integration/mutants/$name.patch
    read -r -a test <<<"$(sed -n 's/^Test: //p' "$patch")"
    read -r -a bins <<<"$(sed -n 's/^Bins: //p' "$patch")"
    git -C "$tree" checkout --quiet .
    git -C "$tree" apply --recount "$patch" || { echo "BROKEN    $name: the patch does not apply"; survived=1; continue; }
    log=target/mutants/$name.log
    # Whole-system tests run the binaries of other packages, which cargo does not build for them.
    if ! (cd "$tree" && { [ ${#bins[@]} -eq 0 ] || cargo build --quiet --bins "${bins[@]}"; } &&
        cargo test --quiet --no-run "${test[@]}") >"$log" 2>&1; then
        echo "BROKEN    $name: it does not build, see $log"
        survived=1
    elif (cd "$tree" && timeout 300 cargo test --quiet "${test[@]}") >"$log" 2>&1; then
        echo "SURVIVED  $name: no test noticed, see $log"
        survived=1
    else
        failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^\([a-z_0-9:]*\) --- FAILED$/\1/p' "$log" | sort -u)
        count=$(wc -l <<<"$failed")
        echo "noticed   $name: $(head -1 <<<"$failed")$([ "$count" -lt 2 ] || echo " and $((count - 1)) more")"
    fi
done
exit $survived
