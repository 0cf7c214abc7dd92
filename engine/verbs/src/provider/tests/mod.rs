//! The provider's posting without a device: the encoder for every device against a stand-in for the
//! driver, and an encoder that records.

mod recording;
mod send_wr;
