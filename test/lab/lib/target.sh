# The target under test, as processes on this machine.  LAB_TARGET names another file with these functions, which then start
# another target that speaks the same JSON-RPC: a way to try the lab itself.
#
#   target_start [OPTION...]   starts it on $T/state and waits until $RPC answers; sets TARGET_PID
#   target_kill9               kill -9, and reaps it
#   target_stop                SIGTERM; fails if it does not end in a minute with status 0

target_start() {
    local i
    mkdir -p "$T/state" "$T/files"
    rm -f "$RPC"
    "$BUILD/ferruled" --no-huge --cores "${TARGET_CORES:-0}" --mem 512 --state-dir "$T/state" --keep-dir "$T/kept" \
        --rpc-socket "$RPC" --http 127.0.0.1:0 --file-dir "$T/files" "$@" >> "$OUT/target.log" 2>&1 &
    TARGET_PID=$!
    for i in $(seq 1200); do
        kill -0 "$TARGET_PID" 2> /dev/null || fail "the daemon ended at its start: $(tail -1 "$OUT/target.log")"
        [ -S "$RPC" ] && rpc spdk_get_version > /dev/null 2>&1 && return
        sleep 0.05
    done
    fail "the daemon's RPC socket does not answer"
}

target_kill9() {
    local pid=$TARGET_PID
    TARGET_PID=
    kill -9 "$pid"
    wait "$pid" 2> /dev/null || true
}

target_stop() {
    local i pid=$TARGET_PID rc=0
    TARGET_PID=
    kill "$pid"
    for i in $(seq 1200); do
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.05
    done
    kill -0 "$pid" 2> /dev/null && fail "the daemon does not end on SIGTERM"
    wait "$pid" || rc=$?
    sanitizers_silent "$OUT/target.log"
    [ "$rc" = 0 ] || fail "the daemon ended with status $rc: $(tail -1 "$OUT/target.log")"
}
