//! Numbers that do not fit each other: the message is on the number that should change, with both.

use kvrail::layouts::plan::Plan;
use kvrail::layouts::{Bf16, Selection};
use kvrail::{KvLayout, engine};

/// 41,984 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64)]
struct Small {
    row: [u8; 656],
}

/// 2 MiB.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 32, tokens = 64)]
struct Large {
    latent: [Bf16; 512],
}

/// In two pieces.
#[derive(KvLayout)]
#[kv(order(regions(layer), token), layers = 2, tokens = 64)]
struct Scattered {
    latent: [Bf16; 512],
}

/// The bytes of `Scattered` in one region.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 2, tokens = 64)]
struct Joined {
    latent: [Bf16; 512],
}
const OF_REGIONS: Plan = Plan::expect(Plan::between(Scattered::GEOMETRY, Joined::GEOMETRY, Selection::ALL));

/// Eight heads in the source for one token, each at a place of its own in the destination.
#[derive(KvLayout)]
#[kv(order(token, head), tokens = 64, heads = 8)]
struct ByToken {
    k: [Bf16; 128],
}
#[derive(KvLayout)]
#[kv(order(head, token), tokens = 64, heads = 8)]
struct ByHead {
    k: [Bf16; 128],
}
const PLAN: Plan = Plan::expect(Plan::between(ByToken::GEOMETRY, ByHead::GEOMETRY, Selection::ALL));
const BATCH: usize = 16;

engine! { ChunkAgainstPage { page: Small, chunk: 262_144 } }
engine! { ChunkOfNoPower { page: Large, chunk: 5_000 } }
engine! { ChunkAgainstDevice { page: Large, chunk: 1 << 20, max_message: 1 << 16 } }
engine! { BatchAgainstDepth { page: Large, max_peers: 1, max_lanes: 1, max_depth: 64, max_batch: BATCH } }
engine! { CqAgainstSq { page: Small, max_rails: 2, max_lanes: 512, max_depth: 128, max_cq: 4_096 } }
engine! { SgesAgainstPlan { page: ByToken, plan: PLAN, max_sges: 4 } }
engine! { PlanOfOthers { page: Small, plan: PLAN, max_sges: 32 } }
engine! { PlanOfRegions { page: Joined, plan: OF_REGIONS } }
engine! { Rails { page: Small, max_rails: 17 } }
engine! { Peers { page: Small, max_peers: 0 } }
engine! { Lanes { page: Small, max_peers: 64, max_lanes: 63 } }
engine! { Regions { page: Small, max_peers: 64, max_regions: 127 } }
engine! { Depth { page: Small, max_depth: 100 } }
engine! { Batches { page: Small, max_batches: 20_000 } }
engine! { Submitters { page: Small, max_submitters: 65 } }
engine! { RailBytes { page: Large, chunk: 1 << 20, rail_bytes: 1 << 19 } }
engine! { RailWrs { page: Large, rail_wrs: 0 } }
engine! { Deadline { page: Small, deadline_ms: 0 } }
engine! { Regional { page: Scattered } }

// Two at once.
engine! { Two { page: Small, max_rails: 0, chunk: 1 << 20 } }

fn main() {}
