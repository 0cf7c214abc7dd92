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
#
# Output:
#
#    mooncake-transfer-engine-non-cuda 0.3.13.post1
#    put, nothing, remove: 0
#    put, is_exist, remove: -706
#    put, get_size, remove: -706
#    remove after 4 s, when the lease of is_exist has run out: 0
#    as described: a question pins the object, a put does not
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
. "$(dirname "${BASH_SOURCE[0]}")/mooncake-store"
work=$(mktemp -d)
trap 'mooncake_end; rm -rf "$work"' EXIT
mooncake_store "$work" --default_kv_lease_ttl=3000
cat >"$work/ask.py" <<'PY'
import sys, time
from connected import store


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
mooncake_python "$work/ask.py" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: leases are no longer granted as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  exit 2
fi
echo "as described: a question pins the object, a put does not"
