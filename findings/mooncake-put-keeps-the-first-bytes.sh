#!/usr/bin/env bash
# Mooncake Store: a second put of a key reports success, and stores nothing.
#
# The guess: put(key, value) that returns 0 has stored the value; or it fails because the key
# exists.
# What happens: it returns 0, and the first bytes stay, also if the second value has another length.
# A producer that computes a page again under the same key (another dtype, another layout, another
# revision of the model) believes that the new bytes are served, and readers go on getting the old
# ones. upsert replaces them.
#
# Needs Python 3.9 or newer with venv. Seen with mooncake-transfer-engine-non-cuda 0.3.13.post1 (one
# master, one client, TCP), 60 MB of download, about 20 s. Exits 1 when the behaviour is another
# one.
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
"$bin/mooncake_master" --rpc_port="$rpc" --metrics_port="$metrics" --enable_http_metadata_server=true \
  --http_metadata_server_port="$http" >"$work/master.log" 2>&1 &
master=$!
cat >"$work/put.py" <<'PY'
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
first = store.put("page", b"A" * 4096)
second = store.put("page", b"B" * 4096)
after_second = store.get("page")
third = store.put("page", b"C" * 100)
after_third = store.get("page")
upsert = store.upsert("page", b"D" * 4096)
after_upsert = store.get("page")
print(f"put A * 4096: {first}; put B * 4096: {second}, then get: {after_second[:1]} * {len(after_second)}")
print(f"put C * 100: {third}, then get: {after_third[:1]} * {len(after_third)}")
print(f"upsert D * 4096: {upsert}, then get: {after_upsert[:1]} * {len(after_upsert)}")
same = (first, second, third, upsert) == (0, 0, 0, 0)
same = same and after_second == b"A" * 4096 and after_third == b"A" * 4096 and after_upsert == b"D" * 4096
store.close()
sys.exit(0 if same else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/put.py" "$rpc" "$http" 2>"$work/log" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: a second put no longer behaves as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log" "$work/master.log"
  exit 2
fi
echo "as described: put of a key that exists says 0 and keeps the first bytes"
