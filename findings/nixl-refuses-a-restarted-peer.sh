#!/usr/bin/env bash
# NIXL: the metadata of a peer that has restarted under its name are refused, until the reader
# removes the old ones itself.
#
# The guess: add_remote_agent adds or updates. Newer metadata of a known agent (it has registered
# more memory) are taken, so those of its next life are, too.
# What happens: the first is right. But a restarted agent has another connection, and
# add_remote_agent raises NIXL_ERR_NOT_ALLOWED; the old life's metadata stay in force. The reader
# must notice the restart by other means, call remove_remote_agent, and only then add_remote_agent.
# A retry of add_remote_agent alone never succeeds, however long it goes on.
#
# Needs Python 3.10 or newer with venv. Seen with nixl-cu12 1.5.1, its UCX backend and host memory,
# on a machine without a GPU or a NIC, 90 MB of download, about 30 s. Exits 1 when the behaviour is
# another one.
#
# Output:
#
#    nixl-cu12 1.5.1
#    first life: taken · DONE, byte 1 · with more memory: taken · DONE, byte 1
#    second life: NIXL_ERR_NOT_ALLOWED · again: NIXL_ERR_NOT_ALLOWED
#    after remove_remote_agent: taken · DONE, byte 2
#    as described: a restarted peer is refused until it has been removed
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps nixl-cu12==1.5.1 numpy==2.2.6
cat >"$work/producer.py" <<'PY'
import base64, itertools, sys
import numpy
from nixl_cu12._api import nixl_agent, nixl_agent_config

agent = nixl_agent("producer", nixl_agent_config(backends=["UCX"]))
pages = []
for command in itertools.chain(["first"], sys.stdin):
    pages.append(numpy.full(4096, int(sys.argv[1]), numpy.uint8))
    agent.register_memory([(pages[-1].ctypes.data, 4096, 0, "")], "DRAM")
    print("METADATA", pages[-1].ctypes.data, base64.b64encode(agent.get_agent_metadata()).decode(), flush=True)
PY
cat >"$work/reader.py" <<'PY'
import base64, os, subprocess, sys, time
from importlib.metadata import version
import numpy
from nixl_cu12._api import nixl_agent, nixl_agent_config
from nixl_cu12._bindings import nixlNotAllowedError

print("nixl-cu12", version("nixl-cu12"))
reader = nixl_agent("reader", nixl_agent_config(backends=["UCX"]))
slot = numpy.zeros(4096, numpy.uint8)
reader.register_memory([(slot.ctypes.data, 4096, 0, "")], "DRAM")


def start(value):
    command = [sys.executable, sys.argv[1], str(value)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def metadata(producer):
    for line in producer.stdout:
        if line.startswith("METADATA"):
            _, address, data = line.split()
            return int(address), base64.b64decode(data)
    sys.exit("the producer has ended")


def read(address):
    local = reader.get_xfer_descs([(slot.ctypes.data, 4096, 0)], "DRAM")
    remote = reader.get_xfer_descs([(address, 4096, 0)], "DRAM")
    handle = reader.initialize_xfer("READ", local, remote, "producer", b"")
    state, end = reader.transfer(handle), time.monotonic() + 20
    while state == "PROC" and time.monotonic() < end:
        state = reader.check_xfer_state(handle)
    return f"{state}, byte {slot[0]}"


def add(data):
    try:
        reader.add_remote_agent(data)
        return "taken"
    except nixlNotAllowedError as error:
        return str(error)


first = start(1)
address, data = metadata(first)
seen = [add(data), read(address)]
first.stdin.write("more\n")
first.stdin.flush()
address, data = metadata(first)
seen += [add(data), read(address)]
print("first life:", seen[0], "·", seen[1], "· with more memory:", seen[2], "·", seen[3])
first.kill()
first.wait()
second = start(2)
address, data = metadata(second)
seen += [add(data), add(data)]
print("second life:", seen[4], "· again:", seen[5])
reader.remove_remote_agent("producer")
seen += [add(data), read(address)]
print("after remove_remote_agent:", seen[6], "·", seen[7])
second.kill()
second.wait()
refused = "NIXL_ERR_NOT_ALLOWED"
same = seen == ["taken", "DONE, byte 1", "taken", "DONE, byte 1", refused, refused, "taken", "DONE, byte 2"]
sys.stdout.flush()
os._exit(0 if same else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/reader.py" "$work/producer.py" >"$work/out" 2>"$work/log" || status=$?
grep -v INFO "$work/out" || true
if [ "$status" -eq 10 ]; then
  echo "CHANGED: the metadata of a restarted peer are no longer refused as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: a restarted peer is refused until it has been removed"
