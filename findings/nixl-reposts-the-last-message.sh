#!/usr/bin/env bash
# NIXL: a transfer without a message sends the last one that its handle had.
#
# The guess: transfer(handle, message) sends this message this once. transfer(handle) sends none,
# or the one that the handle was made with.
# What happens: a message that is given to transfer() stays in the handle, in place of the first.
# Each later transfer of it without a message, or with an empty one, sends that again, and nothing
# takes it out. A reader that keeps a prepared handle and reads anew, first for request A with a
# message and then without one, tells the producer for a second time that A is done: a producer that
# counts these messages to free pages frees too early. A handle that was ever given a message needs
# one with every transfer; for quiet reads it takes a handle of its own.
#
# Needs Python 3.10 or newer with venv. Seen with nixl-cu12 1.5.1, its UCX backend, two agents in
# one process and host memory, on a machine without a GPU or a NIC, 90 MB of download, about 30 s.
# Exits 1 when the behaviour is another one.
#
# Output:
#
#    nixl-cu12 1.5.1
#    made with 'first': [b'first'], with 'A' [b'A'], without [b'A'], with '' [b'A']
#    prepared with 'first': [b'first'], with 'A' [b'A'], without [b'A'], with '' [b'A']
#    made without a message: [], with 'A' [b'A'], without [b'A'], with '' [b'A']
#    as described: a transfer without a message sends the last one again
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps nixl-cu12==1.5.1 numpy==2.2.6
cat >"$work/repost.py" <<'PY'
import os, sys, time
from importlib.metadata import version
import numpy
from nixl_cu12._api import nixl_agent, nixl_agent_config

reader, producer = (nixl_agent(name, nixl_agent_config(backends=["UCX"])) for name in ("reader", "producer"))
slot, page = numpy.zeros(4096, numpy.uint8), numpy.ones(4096, numpy.uint8)
reader.register_memory([(slot.ctypes.data, 4096, 0, "")], "DRAM")
producer.register_memory([(page.ctypes.data, 4096, 0, "")], "DRAM")
reader.add_remote_agent(producer.get_agent_metadata())
to, of = [(slot.ctypes.data, 4096, 0)], [(page.ctypes.data, 4096, 0)]


def made(message):
    to_slot, of_page = reader.get_xfer_descs(to, "DRAM"), reader.get_xfer_descs(of, "DRAM")
    return reader.initialize_xfer("READ", to_slot, of_page, "producer", message)


def prepared(message):
    to_slot, of_page = reader.prep_xfer_dlist("NIXL_INIT_AGENT", to, "DRAM"), reader.prep_xfer_dlist("producer", of, "DRAM")
    return reader.make_prepped_xfer("READ", to_slot, [0], of_page, [0], message)


def arrived():
    return [message for messages in producer.get_new_notifs().values() for message in messages]


def read(handle, *message):
    """The messages that the producer gets for one READ."""
    state, end = reader.transfer(handle, *message), time.monotonic() + 20
    while state == "PROC" and time.monotonic() < end:
        state = reader.check_xfer_state(handle)
    if state != "DONE":
        sys.exit(f"a read ended in state {state}")
    seen, end = [], time.monotonic() + 1
    while time.monotonic() < end:
        seen += arrived()
        time.sleep(0.02)
    return seen


print("nixl-cu12", version("nixl-cu12"))
same = True
for what, make, first in (
    ("made with 'first'", made, b"first"),
    ("prepared with 'first'", prepared, b"first"),
    ("made without a message", made, b""),
):
    handle = make(first)
    seen = [read(handle), read(handle, b"A"), read(handle), read(handle, b"")]
    print(f"{what}: {seen[0]}, with 'A' {seen[1]}, without {seen[2]}, with '' {seen[3]}")
    same = same and seen == [[first] if first else [], [b"A"], [b"A"], [b"A"]]
sys.stdout.flush()
os._exit(0 if same else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/repost.py" >"$work/out" 2>"$work/log" || status=$?
grep -v INFO "$work/out" || true
if [ "$status" -eq 10 ]; then
  echo "CHANGED: a handle no longer keeps the last message as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: a transfer without a message sends the last one again"
