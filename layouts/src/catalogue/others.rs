//! Pages of LMCache and TensorRT-LLM.

use super::parts::{HEAD, K_THEN_V, LAYER, MLA, TOKEN, heads, layers, layouts, tokens};
use crate::declaration::{Declaration, Level};

layouts! {
    /// LMCache 0.5.6, a chunk of 256 tokens (`KV_2LTD`), Llama 3 8B: \[K and V, L 32, T 256, H 8,
    /// 128 bf16\], 33,554,432 bytes.
    LmcLlama3_8b = "lmc_llama3_8b", 33_554_432 bytes: Declaration {
        axes: &[layers(32), tokens(256), heads(8)],
        order: &[Level::Planes, LAYER, TOKEN, HEAD],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
    /// LMCache 0.5.6, a chunk of 256 tokens (`KV_MLA_FMT`), MLA in bf16: \[L 61, T 256, 512 latent
    /// and 64 RoPE\], 17,989,632 bytes.
    LmcMla = "lmc_mla", 17_989_632 bytes: Declaration {
        axes: &[layers(61), tokens(256)],
        order: &[LAYER, TOKEN],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// TensorRT-LLM's pool, Llama 3 8B: \[L 32, K and V, H 8, T 32, 128 bf16\], 4,194,304 bytes.
    /// From public sources of early 2026; not compared with a release.
    TrtllmLlama3_8b = "trtllm_llama3_8b", 4_194_304 bytes: Declaration {
        axes: &[layers(32), tokens(32), heads(8)],
        order: &[LAYER, Level::Planes, HEAD, TOKEN],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
}
