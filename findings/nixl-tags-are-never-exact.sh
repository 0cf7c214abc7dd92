#!/usr/bin/env bash
# NIXL: whether page-1 has been read is answered by page-10, and tag_is_prefix=False is looser
# still.
#
# The guess: check_remote_xfer_done(agent, b"page-1") is true once the message b"page-1" has come;
# if it matches beginnings by default, then tag_is_prefix=False asks for the whole message.
# What happens: by default every message that begins with the tag counts, and with
# tag_is_prefix=False every message that has it anywhere. There is no exact match. The first that
# counts is taken away: after page-10's message has answered for page-1, page-10 is never done, and
# page-1 counts as read while its reader still reads. Names need an end that no other name has at
# that place, such as b"page-1;" for the default.
#
# Needs Python 3.10 or newer with venv. Seen with nixl-cu12 1.5.1, its UCX backend, two agents in
# one process and host memory, on a machine without a GPU or a NIC, 90 MB of download, about 30 s.
# Exits 1 when the behaviour is another one.
#
# Output, with long lines broken:
#
#    nixl-cu12 1.5.1
#    page-10 was read: page-1 done True; then page-10 done False
#    layer-3 of page-10 was read: page-1 done False, with tag_is_prefix=False True; then layer-3 of
#        page-10 done False
#    page-10; was read: page-1; done False; then page-10; done True
#    as described: another page's message answers, and is gone
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps nixl-cu12==1.5.1 numpy==2.2.6
cat >"$work/tags.py" <<'PY'
import os, sys, time
from importlib.metadata import version
import numpy
from nixl_cu12._api import nixl_agent, nixl_agent_config

reader, producer = (nixl_agent(name, nixl_agent_config(backends=["UCX"])) for name in ("reader", "producer"))
slot, page = numpy.zeros(4096, numpy.uint8), numpy.ones(4096, numpy.uint8)
reader.register_memory([(slot.ctypes.data, 4096, 0, "")], "DRAM")
producer.register_memory([(page.ctypes.data, 4096, 0, "")], "DRAM")
reader.add_remote_agent(producer.get_agent_metadata())


def read(message):
    to_slot = reader.get_xfer_descs([(slot.ctypes.data, 4096, 0)], "DRAM")
    of_page = reader.get_xfer_descs([(page.ctypes.data, 4096, 0)], "DRAM")
    handle = reader.initialize_xfer("READ", to_slot, of_page, "producer", message)
    state, end = reader.transfer(handle), time.monotonic() + 20
    while state == "PROC" and time.monotonic() < end:
        state = reader.check_xfer_state(handle)
    while message not in producer.update_notifs().get("reader", []):
        if state != "DONE" or time.monotonic() > end:
            sys.exit(f"the message of a read in state {state} does not arrive")
        time.sleep(0.02)


def done(tag, **how):
    return producer.check_remote_xfer_done("reader", tag, **how)


print("nixl-cu12", version("nixl-cu12"))
read(b"page-10")
seen = [done(b"page-1"), done(b"page-10")]
print(f"page-10 was read: page-1 done {seen[0]}; then page-10 done {seen[1]}")
read(b"layer-3 of page-10")
seen += [done(b"page-1"), done(b"page-1", tag_is_prefix=False), done(b"layer-3 of page-10")]
print(f"layer-3 of page-10 was read: page-1 done {seen[2]}, with tag_is_prefix=False {seen[3]}; then layer-3 of page-10 done {seen[4]}")
read(b"page-10;")
seen += [done(b"page-1;"), done(b"page-10;")]
print(f"page-10; was read: page-1; done {seen[5]}; then page-10; done {seen[6]}")
sys.stdout.flush()
os._exit(0 if seen == [True, False, False, True, False, False, True] else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/tags.py" >"$work/out" 2>"$work/log" || status=$?
grep -v INFO "$work/out" || true
if [ "$status" -eq 10 ]; then
  echo "CHANGED: tags no longer match as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: another page's message answers, and is gone"
