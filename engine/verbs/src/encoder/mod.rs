//! How work requests get into a QP's send queue: one trait, [`Encoder`], and its implementations.
//!
//! [`SendWrEncoder`] posts chains of `ibv_send_wr` through the driver's `post_send`, on any device.
//! An encoder that writes a device's own work queue entries (a DC or SRD send queue) stands beside
//! it in this folder and is chosen by type: [`Verbs<E>`](crate::Verbs) is generic over it, so a wr
//! costs no branch.
//!
//! With the feature `mlx5` there is one for ConnectX, which has met no ConnectX yet, and a third
//! that is one of the two, as [`VerbsConfig::encoder`](crate::VerbsConfig::encoder) says.

#[cfg(feature = "mlx5")]
mod chosen;
mod contract;
#[cfg(feature = "mlx5")]
mod mlx5;
mod send_wr;
mod templates;

use std::sync::Arc;

#[cfg(feature = "mlx5")]
pub use chosen::{ChosenEncoder, ChosenPost, ChosenQueue};
pub use contract::{Encoder, EncoderPost};
#[cfg(feature = "mlx5")]
pub use mlx5::{Mlx5Encoder, Mlx5Post, Mlx5Queue};
pub use send_wr::{SendWrEncoder, SendWrPost, SendWrQueue};

use crate::rail::Rail;

/// The encoder of [`Verbs`](crate::Verbs) where none is named.
#[cfg(feature = "mlx5")]
pub(crate) type DefaultEncoder = ChosenEncoder;
/// The encoder of [`Verbs`](crate::Verbs) where none is named.
#[cfg(not(feature = "mlx5"))]
pub(crate) type DefaultEncoder = SendWrEncoder;

/// The encoder that the configuration of the rails asks for, or another, with the reason in the
/// log.
pub(crate) fn choose(rails: &[Arc<Rail>]) -> DefaultEncoder {
    #[cfg(feature = "mlx5")]
    return ChosenEncoder::new(rails);
    #[cfg(not(feature = "mlx5"))]
    {
        if rails.iter().any(|rail| rail.config().encoder == crate::config::EncoderChoice::Mlx5) {
            tracing::warn!(
                "READs are posted by ibv_post_send, not by mlx5 entries: built without the feature mlx5"
            );
        }
        SendWrEncoder::new()
    }
}
