//! Why READs are not posted as mlx5 entries.

use kvrail_mlx5::DirectQueueError;

/// Why this encoder cannot be used on these rails.
#[derive(Debug, thiserror::Error)]
pub(in crate::encoder) enum Unsuitable {
    #[error("{rail} is not of an mlx5 device")]
    Driver { rail: String },
    #[error("{rail} has no thread domain, so its QPs do not share a doorbell register of their own")]
    NoThreadDomain { rail: String },
    #[error("libmlx5 cannot be used: {reason}")]
    Library { reason: String },
    #[error("mlx5dv_init_obj: errno {errno}")]
    InitObj { errno: i32 },
    #[error("mlx5dv_init_obj gave no {what}")]
    Missing { what: &'static str },
    #[error("{0}")]
    Queue(#[from] DirectQueueError),
    #[error("a send queue of {blocks} blocks has no room for {depth} READs of {sges} pieces")]
    Short { blocks: u32, depth: u32, sges: u32 },
    #[error("a QP or CQ to try it with: {reason}")]
    Probe { reason: String },
}
