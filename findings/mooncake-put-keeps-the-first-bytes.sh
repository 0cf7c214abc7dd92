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
#
# Output:
#
#    mooncake-transfer-engine-non-cuda 0.3.13.post1
#    put A * 4096: 0; put B * 4096: 0, then get: b'A' * 4096
#    put C * 100: 0, then get: b'A' * 4096
#    upsert D * 4096: 0, then get: b'D' * 4096
#    as described: put of a key that exists says 0 and keeps the first bytes
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
. "$(dirname "${BASH_SOURCE[0]}")/mooncake-store"
work=$(mktemp -d)
trap 'mooncake_end; rm -rf "$work"' EXIT
mooncake_store "$work"
cat >"$work/put.py" <<'PY'
import sys
from connected import store
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
mooncake_python "$work/put.py" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: a second put no longer behaves as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  exit 2
fi
echo "as described: put of a key that exists says 0 and keeps the first bytes"
