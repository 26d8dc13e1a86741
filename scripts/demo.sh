#!/usr/bin/env bash
# The presence story: two people in a room, one message, and what is known of its delivery.
#
#   scripts/demo.sh memory        everything in one process, on memory slots
#   scripts/demo.sh redis-nats    proxy and runner as processes of their own, on a real Redis and NATS
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-memory}
case $mode in
memory | redis-nats) ;;
*)
    echo "usage: scripts/demo.sh memory|redis-nats" >&2
    exit 2
    ;;
esac
work=$(mktemp -d)
pids=()

finish() {
    local status=$?
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    [ $status -eq 0 ] || { echo "the demo failed; what the processes said:"; tail -n 20 "$work"/*.log || true; } >&2
    rm -rf "$work"
    exit $status
}
trap finish EXIT

if [ -z "${PRISM_BINARIES:-}" ]; then
    echo "building (the first time takes some minutes) ..." >&2
    quiet=--quiet
    [ -t 2 ] && quiet=
    cargo build $quiet --bin prism-proxy --bin multicast-registry-runner --bin prism-probe
    PRISM_BINARIES=target/debug
fi

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# Shows a command as it would be typed.
say() {
    local word line=
    for word in "$@"; do
        case $word in *[!A-Za-z0-9./_:=-]*) word="'$word'" ;; esac
        line+=" $word"
    done
    printf '  $%s\n' "$line"
}

# start NAME COMMAND...: starts a process whose output goes to NAME.log and NAME.out
start() {
    local name=$1
    shift
    "$@" >"$work/$name.out" 2>"$work/$name.log" &
    pids+=($!)
}

# address NAME WHAT: waits until a process has said where it serves
address() {
    local line
    for _ in $(seq 1 200); do
        line=$(grep -m1 "^$2 " "$work/$1.out" 2>/dev/null || true)
        [ -n "$line" ] && { echo "${line#* }"; return; }
        sleep 0.05
    done
    echo "$1 did not come up" >&2
    return 1
}

# A port that nobody listens on.
free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 12000))
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

bind=(--control-addr 127.0.0.1:0 --data-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0)
case $mode in
memory)
    namespace=default
    start proxy "$PRISM_BINARIES/prism-proxy" --embedded "${bind[@]}"
    ;;
redis-nats)
    namespace=presence
    export PATH=$PATH:$(go env GOPATH)/bin
    redis_port=$(free_port) nats_port=$(free_port)
    start redis redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --maxmemory-policy noeviction
    start nats nats-server -a 127.0.0.1 -p "$nats_port"
    sed -e "s/localhost:6379/127.0.0.1:$redis_port/; s/localhost:4222/127.0.0.1:$nats_port/" \
        examples/user-presence.yaml >"$work/presence.yaml"
    start proxy "$PRISM_BINARIES/prism-proxy" --config "$work/presence.yaml" "${bind[@]}"
    start runner "$PRISM_BINARIES/multicast-registry-runner" -proxy-addr "$(address proxy control)"
    ;;
esac

PRISM_ENDPOINT=$(address proxy data)
export PRISM_ENDPOINT PRISM_NAMESPACE=$namespace
probe() {
    say prism-probe "$@"
    "$PRISM_BINARIES/prism-probe" "$@"
}

# listen NAME: Alice's messages go to NAME.out from now on; returns once she listens
listen() {
    start "$1" "$PRISM_BINARIES/prism-probe" multicast subscribe user-alice --count 1
    for _ in $(seq 1 200); do
        grep -q listening "$work/$1.log" 2>/dev/null && return
        sleep 0.05
    done
    echo "nobody listens" >&2
    return 1
}

# received NAME: shows what came, once it has
received() {
    wait "${pids[-1]}"
    sed 's/^/  /' "$work/$1.out"
    [ -s "$work/$1.out" ]
}

for _ in $(seq 1 100); do
    "$PRISM_BINARIES/prism-probe" check >/dev/null 2>&1 && break
    sleep 0.1
done

step "register: Alice and Bob join the room"
probe multicast register user-alice --ttl 60 \
    --metadata '{"user_id": "alice", "display_name": "Alice", "status": "online", "current_room": "engineering"}'
probe multicast register user-bob --ttl 60 \
    --metadata '{"user_id": "bob", "display_name": "Bob", "status": "online", "current_room": "engineering"}'

step "Alice listens"
printf '  $ prism-probe multicast subscribe user-alice --count 1 &\n'
listen first

step "enumerate: who is in the room?"
probe multicast enumerate --filter '{"current_room": "engineering", "status": "online"}'

step "multicast: a message to everyone in the room"
status=0
probe multicast publish --filter '{"current_room": "engineering"}' --content-type application/json \
    --payload '{"type": "chat", "from": "carol", "text": "Hello team!"}' || status=$?
echo "  (exit code $status: 4 says that not everybody was reached, and the table says who and why)"
[ "$status" -eq 4 ]

step "received by Alice"
received first

step "Bob leaves; the next message reaches everybody who is left"
probe multicast unregister user-bob
listen second
probe multicast publish --filter '{"current_room": "engineering"}' --payload 'Bye!'
received second

step "done: registered, enumerated, multicast, received, and told the truth about it"
