#!/usr/bin/env bash
# Dynamo's radix tree: a removed block takes all blocks behind it along, and they do not come back
# with it.
#
# The guess: a removal takes out the block that it names. As long as that is missing, the prefix
# ends before it; when it is stored again, the blocks behind it, which were not removed, match
# again.
# What happens: the removal also drops every block behind the named one. When that is stored again,
# the match ends at it. From then on, valid events about the blocks behind are errors: a block whose
# parent is one of them is refused ("Failed to find parent block"), and so is the removal of one of
# them ("Failed to find block"). Only if the worker reports them once more are they found. A worker
# that evicts and reloads a block in the middle (another tier, a pull from a peer) has to send
# "stored" for the whole rest, or a reader never hears of pages that are in memory.
#
# Needs Python 3.10 or newer with venv. Seen with ai-dynamo-runtime 1.6.1 (its RadixTree in this
# process, no service), 80 MB of download, 260 MB of disk, about 15 s. Exits 1 when the behaviour is
# another one.
#
# Output, with long lines broken:
#
#    ai-dynamo-runtime 1.6.1
#    store 101 102 103 104: ok, 4 of 4 match
#    remove 102: ok, 1 of 4 match
#    store 102 behind 101: ok, 2 of 4 match
#    store 105 behind 104: Failed to apply event: Failed to find parent block
#    remove 103: Failed to apply event: Failed to find block
#    store 103 104 behind 102, once more: ok, 4 of 4 match
#    as described: a removal takes the blocks behind along, and only their own events bring them
#        back
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps ai-dynamo-runtime==1.6.1 \
  pydantic==2.13.5 pydantic_core==2.46.5 annotated-types==0.8.0 typing_extensions==4.16.0 typing-inspection==0.4.5 \
  uvloop==0.23.0
cat >"$work/tree.py" <<'PY'
import json, sys
from importlib.metadata import version

from dynamo.llm import RadixTree

WORKER = 1
tree, number = RadixTree(), 0


def apply(what, data):
    global number
    number += 1
    event = {"event_id": number, "dp_rank": 0, "data": data}
    try:
        tree.apply_event(WORKER, json.dumps(event).encode())
        answer = "ok"
    except RuntimeError as error:
        answer = str(error)
    matched = tree.find_matches([1, 2, 3, 4]).scores.get((WORKER, 0), 0)
    print(f"{what}: {answer}" + (f", {matched} of 4 match" if answer == "ok" else ""))
    return answer, matched


def store(parent, *blocks, note=""):
    """The tokens of block 101 have the hash 1, and so on."""
    behind = f" behind {parent}" if parent else ""
    blocks_of_event = [{"block_hash": block, "tokens_hash": block - 100} for block in blocks]
    return apply(
        f"store {' '.join(map(str, blocks))}{behind}{note}", {"stored": {"parent_hash": parent, "blocks": blocks_of_event}}
    )


def remove(block):
    return apply(f"remove {block}", {"removed": {"block_hashes": [block]}})


print("ai-dynamo-runtime", version("ai-dynamo-runtime"))
seen = [
    store(None, 101, 102, 103, 104),
    remove(102),
    store(101, 102),
    store(104, 105),
    remove(103),
    store(102, 103, 104, note=", once more"),
]
failed = "Failed to apply event: Failed to find "
wanted = [("ok", 4), ("ok", 1), ("ok", 2), (failed + "parent block", 2), (failed + "block", 2), ("ok", 4)]
sys.exit(0 if seen == wanted else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/tree.py" 2>"$work/log" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: the tree no longer drops the blocks behind a removed one as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: a removal takes the blocks behind along, and only their own events bring them back"
