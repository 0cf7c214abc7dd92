#!/usr/bin/env bash
# safetensors: a page of fp4 with its scales can be saved to bytes and not loaded from them; only a
# file's loader reads it, and not in part.
#
# The guess: save(), load(), save_file() and load_file() know the same dtypes, and the header has
# the tensor's shape. A reader that has pulled a file's bytes into memory loads them there.
# What happens: save() writes F4 and F8_E8M0, the dtypes of an MXFP4 cache, and load() of the same
# bytes raises KeyError. load_file() reads both. The header counts fp4 values, and torch's elements
# are pairs of them: a tensor [64, 256] is [64, 512] in the file. load_file() halves that again;
# get_slice() does not, and raises, so no row can be read alone. With safetensors.numpy and
# ml_dtypes, F8_E8M0 is saved and not loaded either, and fp4 (one value in a byte there) is not
# saved. What works everywhere is uint8, with the dtype told beside it.
#
# Needs Python 3.11 with venv, and gcc. Seen with safetensors 0.8.0, torch 2.14.0 on a CPU, numpy
# 2.2.6 and ml_dtypes 0.5.4. Some 1.2 GB of download, 1.8 GB of disk, two to three minutes. Exits 1
# when the behaviour is another one.
#
# Output, with long lines broken:
#
#    safetensors 0.8.0 torch 2.14.0+cu130
#    torch.float4_e2m1fn_x2 [64, 256]: F4 [64, 512], 16384 bytes; load KeyError; load_file
#        torch.float4_e2m1fn_x2 [64, 256]; row RuntimeError
#    torch.float8_e8m0fnu [64, 16]: F8_E8M0 [64, 16], 1024 bytes; load KeyError; load_file
#        torch.float8_e8m0fnu [64, 16]; row torch.float8_e8m0fnu [1, 16]
#    torch.uint8 [64, 256]: U8 [64, 256], 16384 bytes; load torch.uint8 [64, 256]; load_file
#        torch.uint8 [64, 256]; row torch.uint8 [1, 256]
#    numpy: scales saved as F8_E8M0, load KeyError; fp4 [64, 512] of 32768 bytes, save
#        SafetensorError
#    as described: what save() writes, load() cannot read
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
. "$(dirname "${BASH_SOURCE[0]}")/cpu-torch"
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
cpu_torch "$work/venv" safetensors==0.8.0 ml_dtypes==0.5.4
cat >"$work/fp4.py" <<'PY'
import json, struct, sys

import ml_dtypes, numpy, safetensors, torch
from safetensors import numpy as with_numpy, safe_open, torch as with_torch

FILE = sys.argv[1]


def header(data):
    (size,) = struct.unpack("<Q", data[:8])
    tensor = json.loads(data[8 : 8 + size])["page"]
    begin, end = tensor["data_offsets"]
    return tensor["dtype"], tensor["shape"], end - begin


def answer(what):
    try:
        value = what()
    except Exception as error:
        return type(error).__name__
    return value if isinstance(value, str) else f"{value.dtype} {list(value.shape)}"


def row():
    with safe_open(FILE, "pt") as file:
        return file.get_slice("page")[:1]


def saved(lib, tensor):
    """What the header says, and what load, load_file and a slice of the file's first row give."""
    data = lib.save({"page": tensor})
    with open(FILE, "wb") as file:
        file.write(data)
    dtype, shape, size = header(data)
    seen = answer(lambda: lib.load(data)["page"]), answer(lambda: lib.load_file(FILE)["page"]), answer(row)
    print(f"{tensor.dtype} {list(tensor.shape)}: {dtype} {shape}, {size} bytes; load {seen[0]}; load_file {seen[1]}; row {seen[2]}")
    return dtype, shape, size, *seen


print("safetensors", safetensors.__version__, "torch", torch.__version__)
raw = torch.zeros(64, 256, dtype=torch.uint8)
name = "torch.float4_e2m1fn_x2"
seen = saved(with_torch, raw.view(torch.float4_e2m1fn_x2))
same = seen == ("F4", [64, 512], 64 * 256, "KeyError", f"{name} [64, 256]", "RuntimeError")
name = "torch.float8_e8m0fnu"
seen = saved(with_torch, raw[:, :16].contiguous().view(torch.float8_e8m0fnu))
same = same and seen == ("F8_E8M0", [64, 16], 64 * 16, "KeyError", f"{name} [64, 16]", f"{name} [1, 16]")
name = "torch.uint8"
seen = saved(with_torch, raw)
same = same and seen == ("U8", [64, 256], 64 * 256, f"{name} [64, 256]", f"{name} [64, 256]", f"{name} [1, 256]")
scales = with_numpy.save({"page": numpy.zeros((64, 16), ml_dtypes.float8_e8m0fnu)})
values = numpy.zeros((64, 512), ml_dtypes.float4_e2m1fn)
seen = (
    header(scales)[0],
    answer(lambda: with_numpy.load(scales)["page"]),
    values.nbytes,
    answer(lambda: header(with_numpy.save({"page": values}))[0]),
)
print(f"numpy: scales saved as {seen[0]}, load {seen[1]}; fp4 [64, 512] of {seen[2]} bytes, save {seen[3]}")
same = same and seen == ("F8_E8M0", "KeyError", 64 * 512, "SafetensorError")
sys.exit(0 if same else 10)
PY
status=0
timeout 120 "$work/venv/bin/python" "$work/fp4.py" "$work/page.safetensors" 2>"$work/log" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: fp4 and its scales are no longer saved or loaded as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: what save() writes, load() cannot read"
