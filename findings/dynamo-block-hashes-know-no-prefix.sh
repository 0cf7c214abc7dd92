#!/usr/bin/env bash
# Dynamo: compute_block_hash_for_seq gives a block's own hash, not its prefix's.
#
# The guess: the hashes "for a sequence" are chained, as vLLM's, SGLang's and LMCache's are: equal
# hashes mean equal tokens from the start, so a hash names a page of KV cache.
# What happens: each hash depends on the tokens of its block alone. The same 16 tokens behind two
# other prompts, or twice in one prompt, have the same hash, though their keys and values differ
# (other positions, other attention). As keys of pages these hashes hit, and read another prompt's
# page. They are steps of a walk through Dynamo's radix tree from its root, and mean nothing
# alone. Tokens of the last, unfinished block are dropped without a word: 15 tokens give an empty
# list.
#
# Needs Python 3.10 or newer with venv. Seen with ai-dynamo-runtime 1.6.1, 80 MB of download, 260 MB
# of disk, about 15 s. Exits 1 when the behaviour is another one.
#
# Output:
#
#    ai-dynamo-runtime 1.6.1
#    one prompt, then the same block: ['d47a8f41c833328a', 'bea8a8f7b31eb059']
#    another prompt, then the same block: ['9633b31c7a2562c7', 'bea8a8f7b31eb059']
#    the same block twice: ['bea8a8f7b31eb059', 'bea8a8f7b31eb059']
#    15 tokens: []
#    as described: a block has one hash, behind whatever prompt
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps ai-dynamo-runtime==1.6.1 \
  pydantic==2.13.5 pydantic_core==2.46.5 annotated-types==0.8.0 typing_extensions==4.16.0 typing-inspection==0.4.5 \
  uvloop==0.23.0
cat >"$work/hashes.py" <<'PY'
import sys
from importlib.metadata import version

from dynamo.llm import compute_block_hash_for_seq

BLOCK = 16
SAME = list(range(500, 500 + BLOCK))
ONE, OTHER = list(range(BLOCK)), list(range(100, 100 + BLOCK))


def hashes(what, tokens):
    found = compute_block_hash_for_seq(tokens, BLOCK)
    print(f"{what}: {[format(h, '016x') for h in found]}")
    return found


print("ai-dynamo-runtime", version("ai-dynamo-runtime"))
behind_one = hashes("one prompt, then the same block", ONE + SAME)
behind_other = hashes("another prompt, then the same block", OTHER + SAME)
twice = hashes("the same block twice", SAME + SAME)
short = hashes("15 tokens", SAME[:-1])
same = behind_one[0] != behind_other[0] and behind_one[1] == behind_other[1] == twice[0] == twice[1]
sys.exit(0 if same and short == [] else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/hashes.py" 2>"$work/log" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: a block's hash now depends on what is before it"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: a block has one hash, behind whatever prompt"
