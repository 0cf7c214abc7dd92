#!/usr/bin/env bash
# safetensors: a file's tensors stand in the order of their elements' width, not in the order in
# which they were given.
#
# The guess: save() writes tensors in the order of the dict, or of their names, so a page {keys,
# rope, scale} has its keys first, and a reader that knows the shapes knows the offsets.
# What happens: the widest elements come first, names decide only among equals. A cache that is
# quantised from bf16 to fp8 moves: before, the keys were the first bytes of the data; after, the
# scales are. Two ranks with equal shapes and other dtypes differ in every offset. Only the header's
# data_offsets tell. (The data begin at a multiple of 8, no more: also wrong is the guess that a
# mapped file's tensors are aligned to a cache line.)
#
# Needs Python 3.9 or newer with venv. Seen with safetensors 0.8.0, numpy 2.2.6 and ml_dtypes 0.5.4,
# 25 MB of download, about 15 s.
# Exits 1 when the behaviour is another one.
#
# Output:
#
#    safetensors 0.8.0
#    given as rope, keys, scale; keys and scales in bf16:
#      keys: BF16 at 0
#      rope: BF16 at 65536
#      scale: BF16 at 73728
#    given as rope, keys, scale; keys in fp8, scales in f32:
#      scale: F32 at 0
#      rope: BF16 at 1024
#      keys: F8_E4M3 at 9216
#    the data begin at bytes 216 and 216 of the file
#    as described: the widest elements first, whatever the order that was given
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps safetensors==0.8.0 numpy==2.2.6 ml_dtypes==0.5.4
cat >"$work/order.py" <<'PY'
import json, struct, sys
import ml_dtypes, numpy, safetensors
from safetensors.numpy import save

TOKENS = 64


def layout(keys, scale):
    page = {
        "rope": numpy.zeros((TOKENS, 64), ml_dtypes.bfloat16),
        "keys": numpy.zeros((TOKENS, 512), keys),
        "scale": numpy.zeros((TOKENS, 4), scale),
    }
    data = save(page)
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    order = sorted(header, key=lambda name: header[name]["data_offsets"])
    for name in order:
        print(f"  {name}: {header[name]['dtype']} at {header[name]['data_offsets'][0]}")
    return order, header["keys"]["data_offsets"][0], 8 + size


print("safetensors", safetensors.__version__)
print("given as rope, keys, scale; keys and scales in bf16:")
before = layout(ml_dtypes.bfloat16, ml_dtypes.bfloat16)
print("given as rope, keys, scale; keys in fp8, scales in f32:")
after = layout(ml_dtypes.float8_e4m3fn, numpy.float32)
print("the data begin at bytes", before[2], "and", after[2], "of the file")
same = before[0] == ["keys", "rope", "scale"] and before[1] == 0
same = same and after[0] == ["scale", "rope", "keys"] and after[1] == TOKENS * (4 * 4 + 64 * 2)
same = same and (before[2] % 8, after[2] % 8) == (0, 0) and (before[2] % 64 or after[2] % 64)
sys.exit(0 if same else 10)
PY
status=0
"$work/venv/bin/python" "$work/order.py" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: tensors are no longer ordered as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  exit 2
fi
echo "as described: the widest elements first, whatever the order that was given"
