//! How work requests get into a QP's send queue: one trait, [`Encoder`], and its implementations.
//!
//! [`SendWrEncoder`] posts chains of `ibv_send_wr` through the driver's `post_send`, on any device.
//! An encoder that writes a device's own work queue entries (mlx5 WQEs, a DC or SRD send queue)
//! stands beside it in this folder and is chosen by type: [`Verbs<E>`](crate::Verbs) is generic
//! over it, so a wr costs no branch.

mod contract;
mod send_wr;
mod templates;

pub use contract::{Encoder, EncoderPost};
pub use send_wr::{SendWrEncoder, SendWrPost, SendWrQueue};
