#!/usr/bin/env bash
# Installs what the tests, the benchmarks and the demos start. Quick when it is all there.
#
#   scripts/deps.sh            the servers and gRPC tools
#   scripts/deps.sh lint       also cargo-deny
#   scripts/deps.sh coverage   also cargo-tarpaulin
set -euo pipefail

NATS_VERSION=v2.15.2
GRPCURL_VERSION=v1.9.4
GHZ_VERSION=v0.93.0
CARGO_DENY_VERSION=0.20.2
CARGO_TARPAULIN_VERSION=0.37.5

say() { printf 'deps: %s\n' "$*" >&2; }

need_command() {
    command -v "$1" >/dev/null 2>&1 || { say "$1 is missing: $2"; exit 1; }
}

go_bin() {
    local bin
    bin=$(go env GOBIN)
    printf '%s' "${bin:-$(go env GOPATH)/bin}"
}

# go_tool NAME MODULE VERSION
go_tool() {
    local path
    path=$(go_bin)/$1
    if [ -x "$path" ] && go version -m "$path" 2>/dev/null | grep -q "	$3	\|	$3$"; then
        return
    fi
    say "installing $1 $3"
    go install "$2@$3"
}

apt_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null 2>&1 || { say "install these by hand: ${missing[*]}"; exit 1; }
    say "installing ${missing[*]}"
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    # The packages start their servers on installation; the tests bring their own.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

cargo_tool() {
    if [ "$(cargo "${1#cargo-}" --version 2>/dev/null | grep -o '[0-9][0-9.]*' | head -1)" = "$2" ]; then
        return
    fi
    say "installing $1 $2"
    cargo install --locked --quiet "$1" --version "$2"
}

need_command cargo "install Rust 1.95 or newer with rustup"
need_command go "install Go 1.25 or newer"
command -v redis-server >/dev/null 2>&1 || apt_packages redis-server
# A test has Redis speak another language than C.
[ -e /usr/share/i18n/locales/en_US ] || apt_packages locales
go_tool nats-server github.com/nats-io/nats-server/v2 "$NATS_VERSION"

for extra in "$@"; do
    case $extra in
        demo) ;;
        tools)
            go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl "$GRPCURL_VERSION"
            go_tool ghz github.com/bojand/ghz/cmd/ghz "$GHZ_VERSION"
            ;;
        lint) cargo_tool cargo-deny "$CARGO_DENY_VERSION" ;;
        coverage) cargo_tool cargo-tarpaulin "$CARGO_TARPAULIN_VERSION" ;;
        *) say "unknown extra \`$extra\`"; exit 2 ;;
    esac
done
