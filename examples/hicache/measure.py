"""What the HiCache backend moves over shared memory, beside what kvrail-bench and memcpy do in the same
run: get, set and exists of batches of 128 pages of 128 KiB, by three callers that block.

    python measure.py PATH/TO/kvrail-bench [SECONDS]

The rounds of both sides take turns, and the medians are compared, since other work on the machine slows
whichever runs meanwhile. Where it takes most of the machine, the processor time for a GB says more: it is
that of all threads of this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from engine import KEY, SECRET
from kvrail_hicache import KvrailStorage
from sglang.srt.mem_cache.memory_pool import MLATokenToKVPool
from sglang.srt.mem_cache.pool_host.mla import MLATokenToKVPoolHost

CALLERS, BATCH, PAGE, TOKENS = 3, 128, 128 * 1024, 64
PAGES = 4096
ROUNDS = 5


def host_pool() -> Any:
    """A host pool of SGLang whose pages have 128 KiB: one layer of 1,024 values a token."""
    device = MLATokenToKVPool(TOKENS * CALLERS * BATCH, TOKENS, torch.bfloat16, 960, 64, 1, "cpu", False)
    return MLATokenToKVPoolHost(
        device.get_device_pool_infos()[0].buffer_info,
        1.0,
        0,
        TOKENS,
        "page_first",
        pin_memory=False,
        device_capacity_tokens=device.size,
        start_layer=device.start_layer,
        end_layer=device.end_layer,
        target_layer_num=1,
    )


def storage(pool: Any, pool_bytes: int, **options: Any) -> KvrailStorage:
    config = SimpleNamespace(
        tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, dcp_rank=0, dcp_size=1,
        is_mla_model=True, model_name="org/model",
        extra_config={
            "interface_v1": 1, "kvrail_key": KEY, "kvrail_tag_secret": SECRET, "kvrail_transport": "shm:2",
            "kvrail_pool_bytes": pool_bytes, **{f"kvrail_{name}": value for name, value in options.items()},
        },
    )
    backend = KvrailStorage(config, None)
    backend.register_mem_pool_host(pool)
    return backend


def rate(call: Callable[[int, int], None], seconds: float) -> tuple[float, float]:
    """GB/s of batches that CALLERS threads move, each by call(its number, the round); and seconds of
    processor time a GB."""
    done = [0] * CALLERS
    began, ran = time.monotonic(), time.process_time()

    def work(caller: int) -> None:
        while time.monotonic() - began < seconds:
            call(caller, done[caller])
            done[caller] += 1

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gigabytes = sum(done) * BATCH * PAGE / 1e9
    return gigabytes / (time.monotonic() - began), (time.process_time() - ran) / gigabytes


class Drive:
    """kvrail-bench: a `serve`, of which `drive` gets pages by key."""

    def __init__(self, bench: str) -> None:
        self.bench = bench
        self.serve = subprocess.Popen(
            [bench, "serve", "--layout", "opaque-128k", "--key", KEY, "--working-set", "512MiB"],
            stdout=subprocess.PIPE, text=True,
        )
        assert self.serve.stdout is not None
        line = ""
        while "--connect" not in line:
            line = self.serve.stdout.readline()
        self.address = line.split("--connect")[1].split()[0]

    def rate(self, seconds: float) -> float:
        ran = subprocess.run(
            [self.bench, "drive", "--connect", self.address, "--key", KEY, "--layout", "opaque-128k", "--op", "get",
             "--concurrency", str(CALLERS), "--batch", str(BATCH), "--duration", f"{seconds}s", "--warmup", "0.5s",
             "--rails", "2", "--json", "-"],
            capture_output=True, text=True,
        )
        if ran.returncode != 0:
            raise RuntimeError(f"drive failed: {ran.stderr}")
        return find_rate(ran.stdout)


def find_rate(output: str) -> float:
    """The GB/s of the only row of a report."""
    start = output.index("{")
    report = json.JSONDecoder().raw_decode(output[start:])[0]
    rows = report["results"]
    return float(rows[0]["gb_per_s"])


def main() -> None:
    bench, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    drive = Drive(bench)
    pool = host_pool()
    # With as many pages in a batch of READs as drive has.
    engine = storage(pool, 512 << 20, batch_pages=BATCH)
    assert engine.node is not None
    keys = [f"{number:064x}" for number in range(PAGES)]
    what = f"{type(pool).__name__} {pool.layout} {pool.dtype} {TOKENS} tokens"
    producer = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("producer.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    assert producer.stdin is not None and producer.stdout is not None
    given = {
        "layout": {"name": "measured", "field": what, "bytes": PAGE, "objects": 1}, "keys": keys,
        "model": "org/model", "shape": engine._shape(),
        "node": {"transport": "shm:2", "key": KEY, "tag_secret": SECRET,
                 "directory": f"embedded:{engine.node.address}"},
    }
    producer.stdin.write(json.dumps(given) + "\n")
    producer.stdin.flush()
    assert producer.stdout.readline().startswith("ready")

    indices = [torch.arange(caller * BATCH * TOKENS, (caller + 1) * BATCH * TOKENS) for caller in range(CALLERS)]

    def get(caller: int, round: int) -> None:
        first = (round * CALLERS + caller) * BATCH % PAGES
        assert all(engine.batch_get_v1(keys[first : first + BATCH], indices[caller]))

    def put(caller: int, round: int) -> None:
        named = [f"{caller:02x}{round:010x}{number:052x}" for number in range(BATCH)]
        assert all(engine.batch_set_v1(named, indices[caller]))

    source = pool.kv_buffer.view(torch.uint8).numpy().reshape(-1)
    target = np.zeros(512 << 20, np.uint8)

    def copy(caller: int, round: int) -> None:
        bytes_each = BATCH * PAGE
        first = (round * CALLERS + caller) * bytes_each % (len(target) - bytes_each)
        np.copyto(target[first : first + bytes_each], source[caller * bytes_each : (caller + 1) * bytes_each])

    for warm in (get, put, copy):
        rate(warm, 1.0)
    rates: dict[str, list[float]] = {"drive": [], "get": [], "memcpy": [], "set": []}
    processor: dict[str, list[float]] = {"get": [], "memcpy": [], "set": []}
    for _ in range(ROUNDS):
        rates["drive"].append(drive.rate(seconds))
        for name, call in (("get", get), ("memcpy", copy), ("set", put)):
            per_second, per_gigabyte = rate(call, seconds)
            rates[name].append(per_second)
            processor[name].append(per_gigabyte)
    for name, all_of in rates.items():
        print(f"{name:7} GB/s: {' '.join(f'{one:.2f}' for one in all_of)}   median {median(all_of):.2f}")
    for name, all_of in processor.items():
        print(f"{name:7} processor seconds a GB: {' '.join(f'{one:.3f}' for one in all_of)}   median {median(all_of):.3f}")
    print(f"memcpy / set in processor time {median(processor['memcpy']) / median(processor['set']):.3f}")
    print(f"get / drive  {median(rates['get']) / median(rates['drive']):.3f} (at least 0.95)")
    print(f"set / memcpy {median(rates['set']) / median(rates['memcpy']):.3f} (at least 0.9)")

    other = storage(pool, 64 << 20, directory=f"embedded:{engine.node.address}")
    times = []
    for round in range(500):
        first = round * BATCH % PAGES
        began = time.perf_counter_ns()
        found = other.batch_exists(keys[first : first + BATCH])
        times.append(time.perf_counter_ns() - began)
        assert found == BATCH
    times.sort()
    print(f"exists of {BATCH} keys, asked of another node: median {times[250] / 1e3:.0f} us, p10 {times[50] / 1e3:.0f} us (at most 100)")
    other.close()
    producer.kill()
    engine.close()
    drive.serve.terminate()


if __name__ == "__main__":
    main()
