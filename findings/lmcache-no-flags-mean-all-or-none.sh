#!/usr/bin/env bash
# LMCache: a connector's answer without flags means "all" to a load, and "none" to a lookup.
#
# The guess: a native connector (L2 adapter "native_plugin") that answers (id, True, "", None), with
# no flag for each key, says the same of every operation: it succeeded for all keys.
# What happens: a load counts every buffer as filled, a lookup counts every key as absent. So a
# connector that leaves the flags out is never hit; and one that leaves them out only where it loads
# declares buffers valid which it has not filled. A failed answer (False) that has flags is still
# believed by a load, and not by a lookup.
#
# Needs Python 3.11 with venv, and gcc. Seen with lmcache 0.5.6 and torch 2.14.0 on a CPU; the
# connector below answers what it is told to and moves nothing. Some 1.3 GB of download, 1.8 GB of
# disk, two to three minutes. Exits 1 when the behaviour is another one.
#
# Output, with long lines broken:
#
#    lmcache 0.5.6 torch 2.14.0+cu130
#    (True, '', None): load [True, True, True, True], lookup [False, False, False, False]
#    (True, '', [True, False, True, True]): load [True, False, True, True], lookup [True, False,
#        True, True]
#    (False, 'some failed', [True, False, True, True]): load [True, False, True, True], lookup
#        [False, False, False, False]
#    buffers that were written to: none
#    as described: without flags a load has everything, and a lookup nothing
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
. "$(dirname "${BASH_SOURCE[0]}")/cpu-torch"
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
cpu_torch "$work/venv" lmcache==0.5.6
also aiohttp==3.14.5 cachetools==8.0.2 cryptography==50.0.2 dill==0.4.1 numba==0.68.1 opentelemetry-api==1.45.2 \
  opentelemetry-sdk==1.45.2 prometheus-client==0.26.0 psutil==7.2.2 py-cpuinfo==9.0.0 pyyaml==6.0.4 requests==2.34.2 \
  sortedcontainers==2.4.0 tqdm==4.70.1
# What those need.
also aiohappyeyeballs==2.7.1 aiosignal==1.4.0 attrs==26.1.0 certifi==2026.10.19.post1 cffi==2.1.1 \
  charset-normalizer==3.5.3 frozenlist==1.8.0 idna==3.20 llvmlite==0.50.0 multidict==7.2.1 \
  opentelemetry-semantic-conventions==0.66b2 propcache==0.5.4 pycparser==3.12 urllib3==2.8.0 yarl==1.25.1
cat >"$work/flags.py" <<'PY'
import os, sys, time
from importlib.metadata import version

import torch
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import NativeConnectorL2Adapter
from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj

KEYS = [ObjectKey(bytes([i]) * 32, "org/model", 0) for i in range(4)]


class Answers:
    """A connector that gives every operation the same answer."""

    def __init__(self):
        self.fd, self.number, self.done, self.answer = os.eventfd(0, os.EFD_NONBLOCK), 0, [], None

    def event_fd(self):
        return self.fd

    def _submit(self):
        self.number += 1
        self.done.append((self.number, *self.answer))
        os.eventfd_write(self.fd, 1)
        return self.number

    def submit_batch_get(self, keys, buffers):
        return self._submit()

    def submit_batch_set(self, keys, buffers):
        return self._submit()

    def submit_batch_exists(self, keys):
        return self._submit()

    def drain_completions(self):
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        done, self.done = self.done, []
        return done

    def close(self):
        pass


def buffer():
    meta = MemoryObjMetadata(torch.Size([1024]), torch.uint8, 0, 1024, 1, 0, MemoryFormat.BINARY_BUFFER)
    return TensorMemoryObj(torch.zeros(1024, dtype=torch.uint8), meta, None)


def result(query, task):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = query(task)
        if found is not None:
            return [found.test(i) for i in range(len(KEYS))]
        time.sleep(0.01)
    sys.exit("the adapter does not answer")


connector = Answers()
adapter = NativeConnectorL2Adapter(connector)
buffers = [buffer() for _ in KEYS]


def both(*answer):
    connector.answer = answer
    load = result(adapter.query_load_result, adapter.submit_load_task(KEYS, buffers))
    lookup = result(adapter.query_lookup_and_lock_result, adapter.submit_lookup_and_lock_task(KEYS, {}))
    print(f"{answer}: load {load}, lookup {lookup}")
    return load, lookup


print("lmcache", version("lmcache"), "torch", torch.__version__)
flags = [True, False, True, True]
same = both(True, "", None) == ([True] * 4, [False] * 4)
same = both(True, "", flags) == (flags, flags) and same
same = both(False, "some failed", flags) == (flags, [False] * 4) and same
filled = any(b.tensor.any() for b in buffers)
print("buffers that were written to:", "some" if filled else "none")
sys.stdout.flush()
os._exit(0 if same and not filled else 10)
PY
status=0
LMCACHE_LOG_LEVEL=CRITICAL timeout 120 "$work/venv/bin/python" "$work/flags.py" 2>"$work/log" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: answers without flags are no longer read as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: without flags a load has everything, and a lookup nothing"
