#!/usr/bin/env bash
# Mooncake Store: to ask whether a key exists pins it, so that it cannot be removed.
#
# The guess: is_exist is a question, and changes nothing; a put protects the new object for a while.
# What happens: the other way round. put grants no lease, and the object can be removed at once.
# is_exist and get_size grant one, as get does: remove then fails with -706 until the lease has run
# out. A cleaner that asks before it removes can remove nothing that is asked for, and a monitor
# that looks at keys keeps them from eviction.
#
# Needs Python 3.9 or newer with venv. Seen with mooncake-transfer-engine-non-cuda 0.3.13.post1 (one
# master with leases of 3 s, one client, TCP), 60 MB of download, about 30 s. Exits 1 when the
# behaviour is another one.
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
master=
trap 'if [ -n "$master" ]; then kill "$master" 2>/dev/null || true; wait "$master" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps mooncake-transfer-engine-non-cuda==0.3.13.post1
bin=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mooncake
read -r rpc metrics http < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in sockets))')
"$bin/mooncake_master" --rpc_port="$rpc" --metrics_port="$metrics" --default_kv_lease_ttl=3000 \
  --enable_http_metadata_server=true --http_metadata_server_port="$http" >"$work/master.log" 2>&1 &
master=$!
cat >"$work/ask.py" <<'PY'
import sys, time, socket
from importlib.metadata import version
from mooncake.store import MooncakeDistributedStore

rpc, http = sys.argv[1:]
for port in (rpc, http):
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", int(port))) == 0:
                break
        time.sleep(0.1)
    else:
        sys.exit(f"the master does not listen at port {port}")
store = MooncakeDistributedStore()
if store.setup("127.0.0.1", f"http://127.0.0.1:{http}/metadata", 64 << 20, 64 << 20, "tcp", "", f"127.0.0.1:{rpc}"):
    sys.exit("the store cannot be set up")
print("mooncake-transfer-engine-non-cuda", version("mooncake-transfer-engine-non-cuda"))


def after(what, ask):
    store.put(what, b"x" * 4096)
    ask(what)
    removed = store.remove(what)
    print(f"put, {what}, remove: {removed}")
    return removed


nothing = after("nothing", lambda key: None)
exist = after("is_exist", store.is_exist)
size = after("get_size", store.get_size)
time.sleep(4)
later = store.remove("is_exist")
print(f"remove after 4 s, when the lease of is_exist has run out: {later}")
store.close()
sys.exit(0 if (nothing, exist, size, later) == (0, -706, -706, 0) else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/ask.py" "$rpc" "$http" 2>"$work/log" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: leases are no longer granted as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log" "$work/master.log"
  exit 2
fi
echo "as described: a question pins the object, a put does not"
