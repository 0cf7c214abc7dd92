#!/usr/bin/env bash
# SGLang HiCache: two servers that share a storage folder and differ in --hicache-mem-layout read
# each other's pages permuted.
#
# The guess: a page's key stands for everything that decides its bytes, so a server with another
# layout misses.
# What happens: the key is a chained SHA-256 over token ids. The file's name adds the model, and for
# other models than MLA the rank. The layout of the host pool is in neither, nor is the dtype. Pages
# of page_first (tokens outside) and page_first_direct (layers outside) have equal sizes, so nothing
# is noticed: every page is a hit, the prefetch is complete, and only the first and the last row of
# a page are where they belong.
#
# Needs Python 3.11 with venv, gcc, g++ and OpenSSL's headers (Debian: g++ libssl-dev). Seen with
# sglang 0.5.23 and torch 2.14.0 on a CPU, with sglang's own HiCacheController, MLA pools and file
# backend, nothing of them replaced. Some 1.5 GB of download, 3 GB of disk, three to four minutes.
# Exits 1 when the behaviour is another one.
#
# Output, with long lines broken:
#
#    sglang 0.5.23 torch 2.14.0+cu130
#    files: 13ad856c…_org-model.bin 4e1a87ca…_org-model.bin 5202e60f…_org-model.bin
#        703dc3bb…_org-model.bin
#    written as page_first, read as page_first: 256 tokens hit, 256 loaded, 1536 of 1536 rows right
#    written as page_first, read as page_first_direct: 256 tokens hit, 256 loaded, 8 of 1536 rows
#        right
#    as described: all hits, and the wrong bytes
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
. "$(dirname "${BASH_SOURCE[0]}")/cpu-torch"
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
cpu_torch "$work/venv" sglang==0.5.23 torchvision==0.29.2 compressed-tensors==0.20.1
also aiohttp==3.14.5 apache-tvm-ffi==0.1.15.post2 dill==0.4.1 einops==0.8.2 fastapi==0.165.0 gguf==0.19.0 ipython==9.18.1 loguru==0.7.3 \
  mistral_common==1.13.1 msgspec==0.22.0 ninja==1.13.2 orjson==3.13.0 partial_json_parser==0.2.1.1.post7 pillow==13.0.0 \
  psutil==7.2.2 pybase64==1.5.1 pydantic==2.14.4 python-multipart==0.0.34 pyzmq==27.3.0 requests==2.34.2 safetensors==0.8.0 \
  sentencepiece==0.2.3 setuptools==80.9.0 tqdm==4.70.1 transformers==5.24.0 uvicorn==0.54.0
# What those need.
also aiohappyeyeballs==2.7.1 aiosignal==1.4.0 annotated-doc==0.0.7 annotated-types==0.8.0 anyio==4.16.0 \
  asttokens==3.0.2 attrs==26.1.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3 click==8.5.1 executing==2.3.0 \
  frozenlist==1.8.0 h11==0.16.0 hf-xet==1.8.0 httpcore2==2.16.2 httpx2==2.16.2 huggingface_hub==2.4.0 idna==3.20 \
  ipython_pygments_lexers==1.1.1 jedi==0.20.1 jsonschema==4.26.0 jsonschema-specifications==2025.9.1 \
  markdown-it-py==4.3.0 matplotlib-inline==0.2.2 mdurl==0.1.2 multidict==7.2.1 opentelemetry-api==1.45.2 \
  packaging==26.4 parso==0.8.7 pexpect==4.9.0 prompt_toolkit==3.0.53 propcache==0.5.4 ptyprocess==0.7.0 \
  pure_eval==0.2.4 pycountry==26.2.16 pydantic-extra-types==2.11.1 pydantic_core==2.50.5 Pygments==2.21.0 \
  PyYAML==6.0.4 referencing==0.37.0 regex==2026.11.19 rich==15.0.0 rpds-py==2026.9.1 shellingham==1.5.4 \
  stack-data==0.6.3 starlette==1.10.0 tiktoken==0.14.0 tokenizers==0.23.3 traitlets==5.16.1 truststore==0.10.5 \
  typer==0.29.2 typing-inspection==0.4.5 urllib3==2.8.0 wcwidth==0.9.4 yarl==1.25.1
mkdir "$work/pages"
cat >"$work/mix.py" <<'PY'
import os, queue, sys, time
from importlib.metadata import version

import torch
from sglang.srt.managers.cache_controller import HiCacheController
from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator
from sglang.srt.mem_cache.memory_pool import MLATokenToKVPool
from sglang.srt.mem_cache.pool_host.mla import MLATokenToKVPoolHost
from sglang.srt.runtime_context import get_parallel

TOKENS, LAYERS, PAGES = 64, 6, 4  # of a page; of the model; that are written
get_parallel().override_permanently(tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_dcp_size=1, attn_dcp_rank=0)


def server(layout):
    device = MLATokenToKVPool(16 * TOKENS, TOKENS, torch.bfloat16, 512, 64, LAYERS, "cpu", False)
    host = MLATokenToKVPoolHost(
        device.get_device_pool_infos()[0].buffer_info, 2.0, 0, TOKENS, layout, pin_memory=False,
        device_capacity_tokens=device.size, start_layer=device.start_layer, end_layer=device.end_layer,
        target_layer_num=LAYERS,
    )  # fmt: skip
    allocator = PagedTokenToKVPoolAllocator(device.size, TOKENS, torch.bfloat16, "cpu", device, False)
    return host, HiCacheController(
        allocator, host, TOKENS, tp_group=None, load_cache_event=None, write_policy="write_through",
        io_backend="direct", storage_backend="file", prefetch_threshold=TOKENS, model_name="org/model",
        storage_backend_extra_config={},
    )  # fmt: skip


def wait(answers, wanted):
    end = time.monotonic() + 30
    seen = []
    while time.monotonic() < end:
        try:
            seen.append(answers.get(timeout=0.1))
        except queue.Empty:
            continue
        if wanted(seen[-1]):
            return seen
    sys.exit("the controller does not answer")


def prefetch(host, controller, tokens):
    """How many tokens hit, how many were loaded, and where they are on the host."""
    operation = controller.prefetch("request", tokens + [0] * TOKENS, None)
    hit = controller.prefetch_hit_queue.get(timeout=30).storage_hit_count
    if not hit:
        return 0, 0, None
    operation.host_indices = controller.alloc_prefetch_host_buffers(operation, hit)
    controller.prefetch_buffer.put(operation)
    answers = wait(controller.ack_prefetch_queue, lambda answer: answer.completed_req)
    return hit, max(answer.completed_tokens or 0 for answer in answers), operation.host_indices


print("sglang", version("sglang"), "torch", torch.__version__)
tokens = list(range(1000, 1000 + PAGES * TOKENS))
first, writer = server("page_first")
indices = first.alloc(PAGES * TOKENS)
torch.manual_seed(1)
first.kv_buffer.view(torch.int16).random_(-30000, 30000)
written = first.kv_buffer[indices].view(torch.int16).reshape(PAGES, TOKENS, LAYERS, 576).clone()
hashes = writer.get_hash_str(tokens, None, page_size=TOKENS)
backup = writer.write_storage(indices, tokens, hash_value=hashes)
wait(writer.ack_backup_queue, lambda answer: answer.id == backup)
writer.detach_storage_backend()
print("files:", *sorted(name[:8] + "…" + name[64:] for name in os.listdir(os.environ["SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR"])))

same = True
for layout in ("page_first", "page_first_direct"):
    host, reader = server(layout)
    hit, loaded, where = prefetch(host, reader, tokens)
    rows = 0
    if hit:
        if layout == "page_first":
            read = host.kv_buffer[where].reshape(PAGES, TOKENS, LAYERS, 576)
        else:
            read = host.kv_buffer[where[::TOKENS] // TOKENS].reshape(PAGES, LAYERS, TOKENS, 576).transpose(1, 2)
        rows = int((read.contiguous().view(torch.int16) == written).all(-1).sum())
    total = PAGES * TOKENS * LAYERS
    print(f"written as page_first, read as {layout}: {hit} tokens hit, {loaded} loaded, {rows} of {total} rows right")
    right = total if layout == "page_first" else 2 * PAGES
    same = same and (hit, loaded, rows) == (PAGES * TOKENS, PAGES * TOKENS, right)
    reader.detach_storage_backend()
sys.stdout.flush()
os._exit(0 if same else 10)
PY
status=0
PATH=$work/venv/bin:$PATH TORCH_EXTENSIONS_DIR=$work/extensions SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR=$work/pages \
  timeout 400 "$work/venv/bin/python" "$work/mix.py" 2>"$work/log" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: the two layouts no longer read each other's pages as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  tail -n 20 "$work/log"
  exit 2
fi
echo "as described: all hits, and the wrong bytes"
