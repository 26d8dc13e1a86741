#!/usr/bin/env bash
# The presence story: two people in a room, one message, and what is known of its delivery.
#
#   scripts/demo.sh memory        everything in one process, on memory slots
#   scripts/demo.sh redis-nats    proxy and runner as processes of their own, on a real Redis and NATS
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-memory}
work=$(mktemp -d)
pids=()

finish() {
    local status=$?
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    [ $status -eq 0 ] || { echo "the demo failed; what the processes said:"; tail -n 20 "$work"/*.log; } >&2
    rm -rf "$work"
    exit $status
}
trap finish EXIT

if [ -z "${PRISM_BINARIES:-}" ]; then
    echo "building (the first time takes a few minutes) ..." >&2
    cargo build --quiet --release --bin prism-proxy --bin multicast-registry-runner --bin prism-probe
    PRISM_BINARIES=target/release
fi

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command as it would be typed.
say() {
    local word line=
    for word in "$@"; do
        case $word in *[!A-Za-z0-9./_:=-]*) word="'$word'" ;; esac
        line+=" $word"
    done
    printf '  $%s\n' "$line"
}

# run NAME COMMAND...: starts a process whose output goes to NAME.log and NAME.out
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

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

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
*)
    echo "usage: scripts/demo.sh memory|redis-nats" >&2
    exit 2
    ;;
esac

PRISM_ENDPOINT=$(address proxy data)
export PRISM_ENDPOINT PRISM_NAMESPACE=$namespace
probe() {
    say prism-probe "$@"
    "$PRISM_BINARIES/prism-probe" "$@"
}

for _ in $(seq 1 100); do
    "$PRISM_BINARIES/prism-probe" multicast enumerate >/dev/null 2>&1 && break
    sleep 0.1
done

step "register: Alice and Bob join the room"
probe multicast register user-alice --ttl 60 \
    --metadata '{"user_id": "alice", "display_name": "Alice", "status": "online", "current_room": "engineering"}'
probe multicast register user-bob --ttl 60 \
    --metadata '{"user_id": "bob", "display_name": "Bob", "status": "online", "current_room": "engineering"}'

step "Alice listens"
printf '  $ prism-probe multicast subscribe user-alice --count 1 &\n'
"$PRISM_BINARIES/prism-probe" multicast subscribe user-alice --count 1 -o json >"$work/alice.out" 2>"$work/alice.log" &
alice=$!
pids+=("$alice")
for _ in $(seq 1 200); do
    grep -q opened "$work/alice.out" && break
    sleep 0.05
done

step "enumerate: who is in the room?"
probe multicast enumerate --filter '{"current_room": "engineering", "status": "online"}'

step "multicast: a message to everyone in the room"
status=0
probe multicast publish --filter '{"current_room": "engineering"}' --content-type application/json \
    --payload '{"type": "chat", "from": "carol", "text": "Hello team!"}' || status=$?
echo "  (exit code $status: 4 says that not everybody was reached, and the table says who and why)"
[ "$status" -eq 4 ]

step "received by Alice"
wait "$alice"
python3 - "$work/alice.out" <<'PYTHON'
import base64, json, sys
for line in open(sys.argv[1]):
    delivery = json.loads(line).get("delivery")
    if delivery:
        print("  " + base64.b64decode(delivery["payload"]).decode())
PYTHON
grep -q '"delivery"' "$work/alice.out"

step "Bob leaves; the next message reaches everybody who is left"
probe multicast unregister user-bob
"$PRISM_BINARIES/prism-probe" multicast subscribe user-alice --count 1 -o json >"$work/again.out" 2>"$work/again.log" &
again=$!
pids+=("$again")
for _ in $(seq 1 200); do
    grep -q opened "$work/again.out" && break
    sleep 0.05
done
probe multicast publish --filter '{"current_room": "engineering"}' --payload 'Bye!'
wait "$again"

step "done: registered, enumerated, multicast, received, and told the truth about it"
